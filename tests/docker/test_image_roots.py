"""Exported images give the same verdicts as in Docker, later even without Docker."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny
from conftest import forget_sockets
from sandboxes import as_nobody, require_sandbox, run
from tiny import Task, make_task

from swebench_trainer import builtin
from swebench_trainer.contracts import GradeJob, Grader, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.docker.containers import LABEL
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from swebench_trainer.grading.namespace.grader import (
    NamespaceGrader,
    NamespaceTable,
    image_root,
)
from swebench_trainer.grading.namespace.image_roots import ImageRoot, ImageRoots
from swebench_trainer.grading.namespace.launch import Launcher
from swebench_trainer.grading.namespace.unpack import unpack
from swebench_trainer.grading.official import NOOP
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.types import Candidate, Instance, Status

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "build" / "realtasks"
CASES = {
    "gold": (tiny.GOLD, Status.RESOLVED),
    "no-op": ("", Status.UNRESOLVED),
    "wrong": (tiny.WRONG, Status.UNRESOLVED),
    "malformed": (tiny.MALFORMED, Status.NOT_APPLIED),
}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all of the tests here: an export takes seconds."""
    require_sandbox()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def task(tmp_path: Path, tiny_image: str) -> Task:
    task = make_task(tmp_path)
    return Task(dataclasses.replace(task.instance, snapshot=""), task.folder)


@pytest.fixture
def exported(tiny_image: str) -> ImageRoot:
    roots = ImageRoots()
    try:
        return roots.root(tiny_image)
    finally:
        roots.close()


def namespace_grader(**settings: Any) -> NamespaceGrader:
    table = {"use": "namespace", "retries": 0, "workers": 2, **settings}
    return NamespaceGrader(NamespaceTable.model_validate(table))


def docker_grader() -> DockerGrader:
    table = {"use": "docker", "retries": 0, "workers": 2}
    return DockerGrader(DockerTable.model_validate(table))


def grade(grader: Grader, jobs: list[GradeJob]) -> dict[str, Outcome]:
    try:
        grader.check([job.instance for job in jobs])
        return {job.log_dir.name: outcome for job, outcome in grader.grade(jobs)}
    finally:
        grader.close()


def jobs_of(task: Task, use: str) -> list[GradeJob]:
    return [
        task.job(
            patch,
            extraction=NOOP if name == "no-op" else "ok",
            name=f"{use}/{name}",
        )
        for name, (patch, _) in CASES.items()
    ]


def test_exported_images_give_the_same_verdicts_as_docker(task: Task) -> None:
    ours = grade(namespace_grader(), jobs_of(task, "namespace"))
    reference = grade(docker_grader(), jobs_of(task, "docker"))
    for name, (_, status) in CASES.items():
        assert ours[name].status is status, ours[name]
        assert ours[name].report == reference[name].report
        assert ours[name].flags == reference[name].flags == ()


@pytest.mark.slow
def test_exported_images_give_the_same_verdicts_on_a_real_project(
    tmp_path: Path,
) -> None:
    if not TASKS.is_dir():
        pytest.skip("tests/realtasks/build.py has not been run")
    instance = min(real_instances(), key=lambda i: i.instance_id)
    assert instance.snapshot
    patches = {"gold": instance.patch, "no-op": "", "wrong": tiny.WRONG}

    def jobs(use: str) -> list[GradeJob]:
        return [
            GradeJob(
                instance,
                Candidate(
                    instance.instance_id,
                    0,
                    "model",
                    "",
                    patch,
                    NOOP if name == "no-op" else "ok",
                ),
                tmp_path / use / name,
            )
            for name, patch in patches.items()
        ]

    ours = grade(namespace_grader(programs="image"), jobs("namespace"))
    reference = grade(docker_grader(), jobs("docker"))
    assert ours["gold"].status is Status.RESOLVED, ours["gold"]
    for name in patches:
        assert ours[name].status is reference[name].status, name
        assert ours[name].report == reference[name].report, name


def real_instances() -> list[Instance]:
    plugins = Plugins({"builtin": builtin})
    entry = plugins.registry.get("source", "task-repo")
    source = entry.factory(entry.config(use="task-repo", path=TASKS))
    return list(source.load().instances)


def test_docker_is_not_needed_after_the_export(
    task: Task, exported: ImageRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    job = task.job(tiny.GOLD)
    assert grade(namespace_grader(), [job])["job"].status is Status.RESOLVED
    unknown = dataclasses.replace(task.instance, image="swebench-trainer/unknown:1")
    with pytest.raises(PrerequisiteError, match="has not been exported"):
        grade(namespace_grader(), [GradeJob(unknown, job.candidate, job.log_dir)])
    forget_sockets()


def test_a_daemon_that_disappears_is_not_needed_after_the_export(
    tiny_image: str, exported: ImageRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str) -> None:
        raise ConnectionError(f"no answer for {name}")

    roots = ImageRoots()
    try:
        roots.check("unknown/image:1")
        monkeypatch.setattr(roots._daemon.api, "inspect_image", gone)
        assert roots.image_id(tiny_image) == exported.id
        with pytest.raises(ConnectionError):
            roots.image_id("unknown/image:1")
    finally:
        roots.close()


def test_every_name_of_an_exported_image_is_recorded(
    docker_client: DockerClient, tiny_image: str, exported: ImageRoot
) -> None:
    second = "swebench-trainer/second-name:latest"
    docker_client.images.get(tiny_image).tag(second)
    try:
        roots = ImageRoots()
        assert roots.root(tiny_image) == roots.root(second) == exported
        roots.close()
    finally:
        docker_client.images.remove(second, noprune=True)
    roots = ImageRoots()
    roots._daemon.problem = "it sleeps"
    assert roots.image_id(second) == exported.id
    roots.close()


def test_the_sandbox_is_like_the_container(
    exported: ImageRoot,
    docker_client: DockerClient,
    tiny_image: str,
    tmp_path: Path,
) -> None:
    script = (
        "env | sort; id; pwd; umask; stat -c '%n %a %u %g' / /tmp /root /etc/passwd "
        "/testbed /dev/null /dev/shm; cat /etc/os-release; command -v git python3; "
        "df --output=size /dev/shm; grep -E 'Cap(Eff|Prm|Bnd)' /proc/self/status"
    )
    ours = run(script, tmp_path, root=image_root(exported), shm=64 << 20).output
    container = docker_client.containers.run(
        tiny_image, ["sleep", "60"], entrypoint="", detach=True
    )
    try:
        command = ["/bin/bash", "-c", script]
        theirs = container.exec_run(command, workdir="/testbed").output.decode()
    finally:
        container.remove(force=True)
    ignored = ("HOSTNAME=", "_=", "SHLVL=", "OLDPWD=")

    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith(ignored)]

    assert lines(ours) == lines(theirs)


def test_files_of_the_host_are_hidden(exported: ImageRoot, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden")
    ran = run(
        f"cat {tmp_path}/secret; ls -A /home /root /tmp /mnt /sys /run | grep docker; "
        "touch /usr/bin/new /etc/new; rm -rf /usr/share; cat /proc/net/dev | wc -l; "
        f"ls {exported.path} {Path(sys.prefix)}",
        tmp_path,
        root=image_root(exported),
        inspect=True,
    )
    assert "hidden" not in ran.output
    assert ran.output.count("No such file") == 3, ran
    assert not (exported.path / "usr/bin/new").exists()
    assert (exported.path / "usr/share").is_dir()
    assert ran.evidence is not None
    assert {"/etc/new", "/usr/bin/new", "/usr/share"} <= set(ran.evidence.changed)
    assert not any(path.startswith("/testbed") for path in ran.evidence.changed)


def test_two_concurrent_exports_of_one_image_share_the_work(
    docker_client: DockerClient,
    tiny_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found: list[ImageRoot] = []

    def export() -> None:
        roots = ImageRoots()
        found.append(roots.root(tiny_image))
        roots.close()

    threads = [threading.Thread(target=export) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]
    folder = found[0].path.parent
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in folder.parent.iterdir() if p.suffix == ".new"] == []
    made = docker_client.containers.list(
        all=True, filters={"label": LABEL, "ancestor": tiny_image, "status": "created"}
    )
    assert made == []
    assert list((tmp_path / "swebench-trainer" / "docker").iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_can_unpack_and_run_an_image(
    docker_client: DockerClient, tiny_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not the shared launcher, which may run as root.
    with as_nobody(monkeypatch) as folder, Launcher() as launcher:
        target = folder / "root"
        target.mkdir()
        os.chown(target, 65534, 65534)
        container = docker_client.containers.create(tiny_image, ["true"])
        try:
            unpack_as_nobody(container.export(), target)
        finally:
            container.remove()
        assert {path.lstat().st_uid for path in (target / "usr").iterdir()} == {65534}
        ran = run(
            "id -u; cd /testbed; git status --short; cat /etc/shadow | head -c4; "
            "touch /usr/new; rm /usr/bin/env; python3 -c 'print(6 * 7)'",
            folder,
            root=image_root(ImageRoot("id", target, {"LANG": "C.UTF-8"})),
            group=False,
            inspect=True,
            launcher=launcher,
        )
        assert ran.output == "0\nroot42\n", ran
        assert ran.evidence is not None
        assert ran.evidence.changed == ("/usr/bin/env", "/usr/new")
        assert (target / "usr/bin/env").exists()


def unpack_as_nobody(chunks: Iterator[bytes], target: Path) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            unpack(chunks, target)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
