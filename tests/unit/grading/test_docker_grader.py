"""The parts of the Docker grader that need no daemon."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker import DockerClient
from pydantic import ValidationError

from swebench_trainer.grading.docker import hosts
from swebench_trainer.grading.docker.containers import (
    Container,
    _digest_below,
    _files_below,
    _holds,
    changed_outside,
    ignore_docker_errors,
)
from swebench_trainer.grading.docker.grader import DockerTable, warn_of_emulation
from swebench_trainer.grading.docker.hosts import Host, Hosts, NoHostError, Tunnel
from swebench_trainer.grading.docker.images import repository, retry_seconds
from swebench_trainer.grading.docker.keep_alive import ARCHITECTURES, program
from swebench_trainer.grading.docker.orphans import GraderClaim, remove_orphans
from swebench_trainer.grading.docker.warm_containers import WarmContainers
from swebench_trainer.grading.sandbox import MAX_PATHS
from swebench_trainer.recipe.models import semantic_settings


def test_cleanup_without_a_daemon_raises_nothing() -> None:
    client = DockerClient(base_url="tcp://127.0.0.1:9", version="1.44")
    container = Container(client.api, "gone", 0)
    container.remove()
    with ignore_docker_errors():
        container.kill()
    client.close()


def test_hosts_and_disk_limits_are_not_part_of_the_settings() -> None:
    here = DockerTable(use="docker")
    there = DockerTable(use="docker", hosts=("ssh://a", "ssh://b"), image_gb=100)
    assert semantic_settings(here) == semantic_settings(there)
    small = DockerTable(use="docker", memory="1g")
    assert semantic_settings(here) != semantic_settings(small)
    with pytest.raises(ValidationError):
        DockerTable(use="docker", shm="much")


# The first process of a container.


@pytest.mark.skipif(os.uname().machine not in ARCHITECTURES, reason="no program")
def test_the_first_process_waits_and_deletes_its_file(tmp_path: Path) -> None:
    file = tmp_path / "wait"
    file.write_bytes(program(os.uname().machine, 0.2))
    file.chmod(0o755)
    with subprocess.Popen([file]) as process:
        assert process.wait(30) == 0
    assert not file.exists()


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_first_process_is_an_executable_of_its_architecture(
    architecture: str,
) -> None:
    short, long = program(architecture, 7), program(architecture, 1e12)
    machine = int.from_bytes(short[18:20], "little")
    assert machine == (183 if architecture in ("aarch64", "arm64") else 62)
    assert len(short) == len(long) == int.from_bytes(short[96:104], "little")
    assert (7).to_bytes(4, "little") in short
    assert (2**31 - 1).to_bytes(4, "little") in long


# State of a container.


def test_files_of_a_layer_include_deleted_ones(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "usr/bin/git").touch()
    (tmp_path / "usr/link").symlink_to("/etc")  # not followed
    (tmp_path / "loop").symlink_to(".")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).touch()
    assert sorted(_files_below(tmp_path)) == [
        "/caf\ufffd",
        "/loop",
        "/usr/bin/git",
        "/usr/link",
    ]


def test_a_path_that_is_too_long_is_reported(tmp_path: Path) -> None:
    name = "d" * 200
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(30):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    (found,) = _files_below(tmp_path)
    assert len(found) > 3000


def test_only_a_regular_file_of_the_expected_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"content")
    (tmp_path / "link").symlink_to("plain")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 42)
    assert _holds(tmp_path / "plain", b"content")
    assert not _holds(tmp_path / "plain", b"another")
    for name in ("link", "huge", "pipe", "missing"):
        assert not _holds(tmp_path / name, b"content")
    assert not _holds(tmp_path / "pipe", b"")
    assert not _holds(Path("/dev/null"), b"")


def test_a_digest_does_not_follow_links_out_of_the_layer(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "tests").mkdir(parents=True)
    (layer / "tests/test_a.py").write_text("content")
    (layer / "link").symlink_to(tmp_path / "layer/tests")
    (layer / "tests/test_b.py").symlink_to("test_a.py")
    digest, changed = _digest_below(layer, "tests/test_a.py")
    assert digest == hashlib.sha256(b"content").hexdigest()
    assert changed == (layer / "tests/test_a.py").stat().st_ctime_ns
    assert _digest_below(layer, "link/test_a.py")[0] == "missing"
    assert _digest_below(layer, "tests/test_b.py")[0] == "no regular file"
    assert _digest_below(layer, "tests/test_a.py/x")[0] == "missing"


def test_changes_outside_the_repository_exclude_our_own_files() -> None:
    paths = [
        "/usr/bin/git",
        "/testbed/calc.py",
        "/testbed2/x",
        "/eval.sh",
        "/tmp/patch.diff",
        "/proc/1/x",
        "/dev/null",
        "/root/.gitconfig",
    ]
    given = {"eval.sh": b"", "tmp/patch.diff": b""}
    found = changed_outside(iter(paths), "/testbed", given)
    assert found == ("/root/.gitconfig", "/testbed2/x", "/usr/bin/git")
    many = (f"/tmp/{number}" for number in range(10 * MAX_PATHS))
    assert len(changed_outside(many, "/testbed", given)) == MAX_PATHS


# Images.


@pytest.mark.parametrize(
    ("problem", "worth_another_try"),
    [
        ("toomanyrequests: You have reached your pull rate limit.", True),
        ("received unexpected HTTP status: 502 Bad Gateway", True),
        ("net/http: TLS handshake timeout", True),
        ("dial tcp: lookup registry: no such host", True),
        ("manifest for a/b:latest not found: manifest unknown", False),
        ("pull access denied for a/b, repository does not exist", False),
        ("unauthorized: authentication required", False),
    ],
)
def test_temporary_registry_errors_are_retried(
    problem: str, worth_another_try: bool
) -> None:
    assert (retry_seconds(problem) > 0) is worth_another_try


def test_tags_and_digests_are_removed_from_image_names() -> None:
    assert repository("a/b") == "a/b"
    assert repository("a/b:c") == "a/b"
    assert repository("127.0.0.1:5000/a/b") == "127.0.0.1:5000/a/b"
    assert repository("127.0.0.1:5000/a/b:c") == "127.0.0.1:5000/a/b"
    assert repository("a/b@sha256:0") == "a/b"


# Warm containers.


class FakeContainers:
    """Starts and removes fake containers, identified by a number."""

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self.started = 0
        self.most = 0
        self.lock = threading.Lock()

    def start(self, image: str) -> FakeContainer:
        with self.lock:
            self.started += 1
            self.alive.add(self.started)
            self.most = max(self.most, len(self.alive))
            return FakeContainer(self, self.started, image)


class FakeContainer:
    def __init__(self, containers: FakeContainers, number: int, image: str) -> None:
        self.containers, self.number, self.image = containers, number, image
        self.fresh = True

    def lives_for(self, _: float) -> bool:
        return self.fresh

    def remove(self) -> None:
        time.sleep(0.01)
        with self.containers.lock:
            self.containers.alive.remove(self.number)


def test_a_container_is_started_ahead_and_used_once() -> None:
    containers = FakeContainers()
    warm = WarmContainers(containers.start, workers=2)
    with contextlib.closing(warm):
        first = warm.take("a", 1)
        warm.keep(["a", "b", "c"])
        deadline = time.monotonic() + 5
        while containers.started < 3:
            assert time.monotonic() < deadline
        second, third = warm.take("a", 1), warm.take("b", 1)
        assert containers.started == 3  # none for `c`: there are two workers
        assert {c.number for c in (first, second, third)} == {1, 2, 3}
        for container in (first, second, third):
            warm.discard(container)
    assert containers.alive == set()


def test_warm_containers_that_are_not_needed_are_removed() -> None:
    containers = FakeContainers()
    warm = WarmContainers(containers.start, workers=2)
    warm.keep(["a", "a"])
    warm.keep(["a", "b"])
    warm.close()
    assert containers.alive == set()


def test_a_container_that_is_too_old_is_not_used() -> None:
    containers = FakeContainers()
    warm = WarmContainers(containers.start, workers=1)
    warm.keep(["a"])
    warm._warm["a"][0].result().fresh = False
    assert warm.take("a", 1).number == 2
    warm.close()


def test_no_more_than_twice_as_many_containers_as_workers() -> None:
    containers = FakeContainers()
    warm = WarmContainers(containers.start, workers=3)

    def use(number: int) -> None:
        container = warm.take(f"image {number // 4}", 1)
        warm.keep([f"image {(number + ahead) // 4}" for ahead in (3, 4, 5)])
        time.sleep(0.005)
        warm.discard(container)

    with ThreadPoolExecutor(3) as workers:
        list(workers.map(use, range(60)))
    warm.close()
    assert containers.most <= 6
    assert containers.alive == set()


def test_a_failed_start_is_repeated_when_the_container_is_needed() -> None:
    containers = FakeContainers()
    broken = True

    def start(image: str) -> FakeContainer:
        if broken:
            raise OSError("no daemon")
        return containers.start(image)

    warm = WarmContainers(start, workers=1)
    warm.keep(["a"])
    with pytest.raises(OSError, match="no daemon"):
        warm.take("a", 1)
    warm.keep(["a"])
    assert warm._warm["a"][0].exception() is not None
    broken = False
    warm.discard(warm.take("a", 1))
    warm.close()


# Hosts.


def unreachable(tmp_path: Path, name: str) -> Host:
    return Host(f"unix://{tmp_path}/{name}.sock", 1)


def test_jobs_stop_waiting_if_all_daemons_stay_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(hosts, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(Host, "answers", lambda _: False)
    both = [unreachable(tmp_path, "a"), unreachable(tmp_path, "b")]
    shared = Hosts(both, threading.Event())
    assert shared.connect() == 2
    begin = time.monotonic()
    with pytest.raises(NoHostError, match=r"a\.sock.*b\.sock"), shared.slot():
        pass
    assert 0.4 < time.monotonic() - begin < 3
    begin = time.monotonic()
    with pytest.raises(NoHostError), shared.slot():  # later jobs do not wait
        pass
    assert time.monotonic() - begin < 0.3


def test_a_lost_daemon_gets_no_jobs_until_it_responds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "POLL_SECONDS", 0.05)
    back = False
    monkeypatch.setattr(Host, "answers", lambda _: back)
    first, second = unreachable(tmp_path, "a"), unreachable(tmp_path, "b")
    shared = Hosts([first, second], threading.Event())
    shared.mark_lost(first)
    with shared.slot() as host:
        assert host is second
        back = True
        with shared.slot() as other:
            assert other is first


def test_waiting_for_a_slot_can_be_stopped(tmp_path: Path) -> None:
    stopped = threading.Event()
    shared = Hosts([unreachable(tmp_path, "a")], stopped)
    with shared.slot():
        threading.Timer(0.2, stopped.set).start()
        with pytest.raises(NoHostError, match="stopped"), shared.slot():
            pass


@pytest.mark.parametrize(
    ("url", "tail"),
    [
        ("ssh://a", ["/var/run/docker.sock", "--", "a"]),
        ("ssh://me@a:22/run/d.sock", ["/run/d.sock", "--", "me@a"]),
        ("ssh://-oProxyCommand=x/", ["/var/run/docker.sock", "--", "-oproxycommand=x"]),
    ],
)
def test_the_ssh_command(url: str, tail: list[str]) -> None:
    tunnel = Tunnel(url)
    forward, *rest = tunnel._command[tunnel._command.index("-L") + 1 :]
    assert [forward.partition(":")[2], *rest] == tail
    tunnel.close()
    assert not tunnel.socket.parent.exists()


def test_emulation_causes_a_warning() -> None:
    warn_of_emulation({"here": "x86_64", "there": "amd64"})
    with pytest.warns(UserWarning, match="there runs on aarch64"):
        warn_of_emulation({"here": "x86_64", "there": "aarch64"})


# Claims.


class EmptyDaemon:
    """The API of a daemon without containers."""

    def __init__(self) -> None:
        self.requested: list[str] = []

    def containers(self, *, all: bool, filters: dict[str, str]) -> list[object]:
        self.requested.append(filters["label"].partition("=")[2])
        return []


@pytest.fixture
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("own_claims")
def test_only_the_containers_of_dead_graders_are_removed() -> None:
    living, dead = GraderClaim("living"), GraderClaim("dead")
    for claim in (living, dead):
        claim.add("a")
    dead.release(empty=False)
    api = EmptyDaemon()
    remove_orphans({"a": api, "b": EmptyDaemon()})
    remove_orphans({"a": api})
    assert api.requested == ["dead"]
    living.release(empty=True)
    remove_orphans({"a": api})
    assert api.requested == ["dead"]


@pytest.mark.usefixtures("own_claims")
def test_a_claim_is_kept_until_all_its_daemons_are_cleaned() -> None:
    dead = GraderClaim("dead")
    dead.add("a")
    dead.add("b")
    dead.release(empty=False)
    first, second = EmptyDaemon(), EmptyDaemon()
    remove_orphans({"a": first})
    remove_orphans({"a": first})
    remove_orphans({"a": first, "b": second})
    assert (first.requested, second.requested) == (["dead"], ["dead"])
    remove_orphans({"a": first, "b": second})
    assert second.requested == ["dead"]
