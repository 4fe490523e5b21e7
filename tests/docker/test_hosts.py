"""Several daemons share one queue, and any of them may die."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny
from conftest import forget_sockets, unavailable
from tiny import Task, make_task

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.docker import hosts
from swebench_trainer.grading.docker.containers import LABEL
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
from swebench_trainer.types import Status

if TYPE_CHECKING:
    from conftest import PrivateDaemon
    from docker import DockerClient

pytestmark = [
    pytest.mark.docker,
    # Raised in the SDK when its daemon dies.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _forget_sockets() -> Iterator[None]:
    yield
    forget_sockets()


@pytest.fixture
def daemons(
    make_daemon: Callable[..., PrivateDaemon], saved_tiny_image: Path
) -> tuple[PrivateDaemon, PrivateDaemon]:
    both = make_daemon(), make_daemon()
    for daemon in both:
        daemon.load(saved_tiny_image)
    return both


def grader_on(*addresses: str, **settings: object) -> DockerGrader:
    values = {"use": "docker", "hosts": addresses, "network": False, "retries": 0}
    return DockerGrader(
        DockerTable.model_validate(values | {"workers": 1, "cache": False} | settings)
    )


def mixed_jobs(task: Task, count: int) -> list[GradeJob]:
    """Distinct patches; every second one is wrong."""
    return [
        task.job(
            (tiny.WRONG if number % 2 else tiny.GOLD)
            + tiny.diff(f"extra_{number}.py", None, f"NUMBER = {number}\n"),
            name=f"{number:03}",
        )
        for number in range(count)
    ]


def expected_statuses(jobs: list[GradeJob]) -> dict[str, Status]:
    """Outcomes of an undisturbed run of `mixed_jobs`."""
    both = Status.RESOLVED, Status.UNRESOLVED
    return {job.log_dir.name: both[n % 2] for n, job in enumerate(jobs)}


def statuses(graded: list[tuple[GradeJob, Outcome]]) -> dict[str, Status]:
    assert all(outcome.status in Status for _, outcome in graded)
    return {job.log_dir.name: outcome.status for job, outcome in graded}


def labelled(daemon: PrivateDaemon) -> list[str]:
    with daemon.client() as client:
        found = client.api.containers(all=True, filters={"label": LABEL})
        return [container["Id"] for container in found]


@contextlib.contextmanager
def in_background(do: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=do)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.slow
def test_two_daemons_share_the_work_and_one_is_lost(
    tmp_path: Path, daemons: tuple[PrivateDaemon, PrivateDaemon]
) -> None:
    stays, dies = daemons
    jobs = mixed_jobs(make_task(tmp_path), 24)
    grader = grader_on(stays.url, dies.url)
    grader.check([jobs[0].instance])
    places: Counter[str] = Counter()
    slot = grader._hosts.slot

    @contextlib.contextmanager
    def counted() -> Iterator[hosts.Host]:
        with slot() as host:
            places[host.name] += 1
            yield host

    grader._hosts.slot = counted
    graded = []
    for outcome in grader.grade(jobs):
        graded.append(outcome)
        if len(graded) == 8:
            assert all(places[daemon.url] > 1 for daemon in daemons)
            dies.kill()
    assert statuses(graded) == expected_statuses(jobs)
    grader.close()
    assert labelled(stays) == []
    # The lost daemon returns with its containers, and the next grader removes them.
    dies.start()
    next_grader = grader_on(dies.url)
    next_grader.check([jobs[0].instance])
    next_grader.close()
    assert labelled(dies) == []


@pytest.mark.slow
def test_a_daemon_that_restarts_is_waited_for(
    tmp_path: Path, make_daemon: Callable[..., PrivateDaemon], saved_tiny_image: Path
) -> None:
    daemon = make_daemon()
    daemon.load(saved_tiny_image)
    jobs = mixed_jobs(make_task(tmp_path), 8)
    grader = grader_on(daemon.url)

    def restart() -> None:
        time.sleep(3)
        daemon.kill()
        time.sleep(3)
        daemon.start()

    with in_background(restart):
        graded = list(grader.grade(jobs))
    assert statuses(graded) == expected_statuses(jobs)
    grader.close()
    assert labelled(daemon) == []


@pytest.mark.slow
def test_if_all_daemons_are_lost_the_rest_are_infrastructure_errors(
    tmp_path: Path,
    make_daemon: Callable[..., PrivateDaemon],
    saved_tiny_image: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 1)
    daemon = make_daemon()
    daemon.load(saved_tiny_image)
    jobs = mixed_jobs(make_task(tmp_path), 30)
    grader = grader_on(daemon.url, retries=1)
    graded = grader.grade(jobs)
    first = next(graded)
    assert first[1].status is Status.RESOLVED
    daemon.kill()
    begin = time.monotonic()
    rest = [outcome for _, outcome in graded]
    assert time.monotonic() - begin < 15
    assert {outcome.status for outcome in rest[1:]} == {Status.INFRA_ERROR}
    assert daemon.url in rest[-1].reason
    grader.close()


def test_check_names_the_unreachable_daemon(
    tmp_path: Path, docker_client: object
) -> None:
    here = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    grader = grader_on(here, f"unix://{tmp_path}/no.sock")
    with pytest.raises(PrerequisiteError, match=f"{tmp_path}/no.sock"):
        grader.check([])
    grader.close()


@pytest.fixture
def ssh_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A private sshd with its own keys, and a config with which `ssh` finds it."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    ssh = shutil.which("ssh")
    if sshd is None or ssh is None or os.geteuid() != 0:
        unavailable("ssh:// needs ssh, sshd and root")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
            check=True,
        )
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    (folder / "authorized_keys").chmod(0o600)
    known = (folder / "host_key.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(known)}\n")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\n"
        f"PidFile none\nUsePAM no\nPasswordAuthentication no\n"
    )
    (folder / "ssh_config").write_text(
        f"IdentityFile {folder}/user_key\nUserKnownHostsFile {folder}/known_hosts\n"
    )
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(
        f'#!/bin/sh\nexec {ssh} -F {folder}/ssh_config "$@"\n'
    )
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sshd, "-D", "-e", "-f", folder / "sshd_config"],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        wait_for(lambda: can_connect(port))
        yield f"root@127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def can_connect(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def tunnels(word: str) -> list[int]:
    """Processes of ssh(1) with a word in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if arguments[0].endswith(b"ssh") and any(
                word.encode() in argument for argument in arguments
            ):
                found.append(int(process.name))
    return found


def test_a_daemon_is_reached_through_ssh(
    tmp_path: Path, ssh_host: str, tiny_image: str, docker_client: DockerClient
) -> None:
    jobs = mixed_jobs(make_task(tmp_path), 4)
    grader = grader_on(f"ssh://{ssh_host}")
    grader.check([jobs[0].instance])
    (tunnel,) = tunnels("docker.sock:/var/run/docker.sock")
    graded = grader.grade(jobs)
    first = next(graded)
    os.kill(tunnel, signal.SIGKILL)  # another tunnel is started
    assert statuses([first, *graded]) == expected_statuses(jobs)
    grader.close()
    assert tunnels("docker.sock:/var/run/docker.sock") == []


def test_check_reports_why_ssh_failed(ssh_host: str) -> None:
    grader = grader_on(f"ssh://nobody@{ssh_host.partition('@')[2]}/some.sock")
    with pytest.raises(PrerequisiteError, match="Permission denied"):
        grader.check([])
    grader.close()


TRAINER = """
import sys, time
from swebench_trainer.grading.docker.grader import DockerGrader, DockerTable
table = DockerTable(use="docker", hosts=[sys.argv[1]])
DockerGrader(table).check([])
print("checked", flush=True)
time.sleep(600)
"""


def test_a_tunnel_dies_with_its_grader(ssh_host: str, tiny_image: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, f"ssh://{ssh_host}"], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"checked\n"
        (tunnel,) = tunnels("docker.sock:/var/run/docker.sock")
        process.kill()
    wait_for(lambda: tunnel not in tunnels("docker.sock:/var/run/docker.sock"), 5)
