"""Images that no registry has are built from the task's Dockerfile."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import BASE_IMAGE

from swebench_trainer.__main__ import run_command_line
from swebench_trainer.grading.docker import builds, images
from swebench_trainer.grading.docker.builds import Builder, BuildOrder, build_label
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from swebench_trainer.grading.docker.images import (
    ImageError,
    Images,
    RegistryUnreachableError,
    UnbuildableError,
)
from swebench_trainer.grading.ledger import Ledger, require_decided
from swebench_trainer.types import Candidate, Instance, Status, as_row

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.docker

ID = "acme__built-1"
NAME = "swebench/sweb.eval.x86_64.acme_1776_built-1:latest"
DOCKERFILE = f"FROM {BASE_IMAGE}\nCOPY data /data\nLABEL task=built\n"

HARNESS = "from swebench.cli.cli import main; main()"

SHIM = """\
#!/bin/sh
# `docker buildx build` on an engine that has only the classic builder.
if [ "$1" = docker-cli-plugin-metadata ]; then
  echo '{"SchemaVersion": "0.1.0", "Vendor": "tests", "Version": "v0"}'
  exit
fi
shift
[ "$1" = build ] || exit 0
for argument; do
  shift
  case $argument in --load | --progress=*) ;; *) set -- "$@" "$argument" ;; esac
done
unset DOCKER_CONFIG
DOCKER_BUILDKIT=0 exec docker "$@"
"""


@pytest.fixture(autouse=True)
def _unreachable_registry(
    docker_client: DockerClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """No registry has the image, and the machine's builder is the classic one."""

    def pull(self: Images, name: str) -> None:
        raise RegistryUnreachableError(f"no image {name}")

    monkeypatch.setattr(images.Images, "_pull", pull)
    forget = builds.has_buildx.cache_clear
    forget()
    yield
    forget()
    for image in docker_client.images.list(NAME.partition(":")[0]):
        docker_client.images.remove(image.id, force=True)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    folder = tmp_path / "repo" / "tasks" / ID
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "data").write_text("one\n")
    return folder


def instance(task: Path) -> Instance:
    files = (str(task / "Dockerfile"),)
    return Instance(ID, "acme/built", "c", "p", "d", image=NAME, dockerfiles=files)


@pytest.fixture
def find(
    docker_client: DockerClient, task: Path, tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Find the image with a new `Images`, as another run would."""
    stopped = threading.Event()

    def find(policy: builds.BuildPolicy = "missing") -> str:
        orders = {NAME: BuildOrder(instance(task), tmp_path / "logs")}
        api = docker_client.api
        builder = Builder(api, "", policy=policy, orders=orders, stopped=stopped)
        found = Images(api, {}, None, stopped, builder)
        try:
            return found.get(NAME).id
        finally:
            found.close()

    yield find
    stopped.set()


def facts(client: DockerClient) -> Any:
    return client.api.inspect_image(NAME)


def test_a_missing_image_is_built_once_and_again_when_its_context_changes(
    find: Callable[..., str], task: Path, docker_client: DockerClient
) -> None:
    first = find()
    label = build_label(facts(docker_client))
    assert label is not None
    assert find() == find("always") == first
    (task / "tests.json").write_text("{}")  # the harness's file, not copied
    assert find() == first
    (task / "data").write_text("two\n")
    assert find("never") == first
    second = find()
    assert second != first
    assert build_label(facts(docker_client)) != label


def test_an_image_of_someone_else_with_the_name_is_used(
    find: Callable[..., str], docker_client: DockerClient
) -> None:
    base = docker_client.images.get(BASE_IMAGE)
    base.tag(*NAME.split(":"))
    try:
        assert find() == base.id
    finally:
        docker_client.images.remove(NAME)


def test_never_builds_nothing(find: Callable[..., str]) -> None:
    with pytest.raises(ImageError):
        find("never")


def test_a_failed_build_names_its_log(find: Callable[..., str], task: Path) -> None:
    (task / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN echo why && exit 3\n")
    with pytest.raises(UnbuildableError) as failure:
        find()
    path = Path(str(failure.value).rpartition("see ")[2])
    assert "why" in path.read_text()


@pytest.mark.parametrize(
    "line",
    ["RUN <<EOF\ntrue\nEOF", "RUN --mount=type=cache true", "COPY --link data /"],
)
def test_a_dockerfile_that_needs_buildkit_is_refused_without_it(
    find: Callable[..., str], task: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(builds, "has_buildx", lambda: False)
    (task / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\n{line}\n")
    with pytest.raises(UnbuildableError, match="BuildKit"):
        find()


def test_base_images_are_built_first(
    docker_client: DockerClient, task: Path, tmp_path: Path
) -> None:
    base = "swebench-trainer/built-base:1"
    (tmp_path / "base").mkdir()
    (tmp_path / "base/Dockerfile").write_text(f"FROM {BASE_IMAGE}\nLABEL part=base\n")
    (task / "Dockerfile").write_text(f"FROM {base}\nLABEL part=instance\n")
    files = (str(tmp_path / "base/Dockerfile"), str(task / "Dockerfile"))
    two = Instance(ID, "acme/built", "c", "p", "d", image=NAME, dockerfiles=files)
    orders = {NAME: BuildOrder(two, tmp_path / "logs")}
    builder = Builder(
        docker_client.api,
        "",
        policy="missing",
        orders=orders,
        stopped=threading.Event(),
    )
    try:
        builder.build(NAME)
        assert facts(docker_client)["Config"]["Labels"]["part"] == "instance"
        assert build_label(docker_client.api.inspect_image(base)) is not None
    finally:
        docker_client.images.remove(NAME)
        docker_client.images.remove(base)


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "config" / "cli-plugins" / "docker-buildx"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(SHIM)
    plugin.chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))


@pytest.mark.usefixtures("shim")
def test_the_image_equals_the_one_that_the_harness_builds(
    find: Callable[..., str], task: Path, docker_client: DockerClient, tmp_path: Path
) -> None:
    assert builds.has_buildx()
    find()
    ours = facts(docker_client)
    docker_client.images.remove(NAME)
    make_publishable(task)
    repo = str(task.parents[1])
    command = ("images", "build", repo, "--namespace", "swebench", "--instance", ID)
    subprocess.run([sys.executable, "-c", HARNESS, *command], cwd=tmp_path, check=True)
    theirs = facts(docker_client)
    labels = dict(ours["Config"]["Labels"])
    assert labels.pop(builds.LABEL)
    assert labels == theirs["Config"]["Labels"] == {"task": "built"}
    for key in ("Os", "Architecture", "RepoTags"):
        assert ours[key] == theirs[key]


def make_publishable(task: Path) -> None:
    """Add what the harness requires of a task repo, from a shipped one."""
    shipped = Path(__file__).parents[2] / "recipes/quickstart"
    shutil.copy(shipped / "sweb.yaml", task.parents[1])
    for file in (shipped / "tasks/quickstart__foldline-1").iterdir():
        if file.is_file() and not (task / file.name).exists():
            shutil.copy(file, task)
    facts = (task / "task.yaml").read_text()
    facts = facts.replace("quickstart__foldline-1", ID)
    facts = facts.replace("quickstart_1776_foldline-1", "acme_1776_built-1")
    (task / "task.yaml").write_text(facts)


GRADABLE: dict[str, Any] = {
    "eval_script": "true",
    "log_parser": "parse_log_pytest",
    "FAIL_TO_PASS": ("t",),
}

RECIPE = """\
schema_version = 1
name = "built"

[data]
use = "rows"
path = "rows.jsonl"

[prompt]

[model]
name = "builtin:tiny"
"""


def test_the_command_checks_builds_and_prunes(
    task: Path,
    docker_client: DockerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps(as_row(instance(task))) + "\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)

    def command(action: str) -> tuple[int, str]:
        code = run_command_line(["images", action, "recipe.toml"])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    assert "0 of 1 images present" in command("check")[1]
    code, out = command("pull")
    assert code == 1
    assert "1 of 1 images" in out
    assert command("build")[0] == 0
    assert facts(docker_client)
    assert "1 of 1 images present" in command("check")[1]
    assert "removed 1 images" in command("prune")[1]
    assert "0 of 1 images present" in command("check")[1]


def test_an_instance_that_cannot_be_built_is_masked_and_the_stage_continues(
    task: Path, tmp_path: Path
) -> None:
    (task / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN exit 3\n")
    table = DockerTable(use="docker", workers=1, cache=False)
    candidate = Candidate(ID, 0, "gold", "", "diff --git a/x b/x\n")
    broken = dataclasses.replace(instance(task), **GRADABLE)
    with contextlib.closing(DockerGrader(table)) as grader:
        verdicts = Ledger(tmp_path, [broken], run_id="test").grade(
            grader, [candidate], lambda *_: None
        )
    require_decided(verdicts)
    assert verdicts[0].status is Status.INFRA_ERROR
    assert verdicts[0].reward is None
    assert Path(verdicts[0].reason.rpartition("see ")[2]).is_file()
