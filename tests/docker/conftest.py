"""Shared by the Docker tests: a daemon, daemons that may die, and the tiny task."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from docker import DockerClient

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "grading"))

BASE_IMAGE = "swebench-trainer/base:bookworm"
# The harness calls kill(1) at a deadline and fails without it. It waits fifteen seconds for a
# container that ignores the signal to stop.
DOCKERFILE = f"""\
FROM {BASE_IMAGE}
RUN command -v /bin/kill || {{ printf '#!/bin/sh\\nkill "$@"\\n' > /bin/kill && chmod 755 /bin/kill; }}
STOPSIGNAL SIGKILL
WORKDIR /testbed
COPY calc.py /testbed/
RUN git init -q . && git add -A && \\
    git -c user.name=a -c user.email=a@localhost commit -q -m base
"""


def unavailable(reason: str) -> None:
    """Skips with the reason, or fails where Docker is required."""
    if os.environ.get("SWEBENCH_TRAINER_REQUIRE_DOCKER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def forget_sockets() -> None:
    """Collects the sockets that the SDK never closes when it cannot connect them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def _own_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep claims, runs and snapshots in a directory of this session."""
    base = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))


@pytest.fixture(scope="session")
def docker_client() -> Iterator[DockerClient]:
    import docker
    from docker.errors import DockerException, ImageNotFound

    missing = ""
    try:
        client = docker.from_env()
    except DockerException as error:
        missing = f"no Docker daemon: {error}"
    if missing:
        forget_sockets()
        unavailable(missing)
    try:
        client.images.get(BASE_IMAGE)
    except ImageNotFound:
        unavailable(f"no image {BASE_IMAGE}; tests/realtasks/build.py builds it")
    yield client
    client.close()


@pytest.fixture(scope="session")
def tiny_image(docker_client: DockerClient) -> str:
    """Builds the image of the tiny task."""
    from tiny import CALC

    name = "swebench-trainer/tiny-calc:latest"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, text in (("Dockerfile", DOCKERFILE), ("calc.py", CALC)):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    docker_client.images.build(
        fileobj=context, custom_context=True, tag=name, rm=True, forcerm=True
    )
    return name


class Forwarder:
    """A daemon that can die: a forwarding socket in front of the real daemon."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        real = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self._daemon = real.removeprefix("unix://")
        self._ends: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._daemon)
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=pair, daemon=True).start()

    def die(self) -> None:
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def mortal_daemon(tmp_path: Path) -> Iterator[Forwarder]:
    if os.environ.get("DOCKER_HOST", "unix:").partition(":")[0] != "unix":
        pytest.skip("the daemon is not on this machine")
    forwarder = Forwarder(tmp_path / "docker.sock")
    yield forwarder
    forwarder.die()
    forget_sockets()


class PrivateDaemon:
    """A private daemon without a network that tests may kill.

    Its storage is in memory: removing an image from a disk can take half a minute.

    Args:
        disk: Size of its storage.
    """

    def __init__(self, *, disk: str) -> None:
        # The paths of sockets must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="dockerd-"))
        self.url = f"unix://{self.folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "data").mkdir()
        options = ["-t", "tmpfs", "-o", f"size={disk}", "dockerd"]
        subprocess.run(["mount", *options, self.folder / "data"], check=True)

    def start(self) -> None:
        (self.folder / "docker.pid").unlink(missing_ok=True)
        while self._containerd_lives():  # it dies soon after the daemon
            time.sleep(0.1)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    # Without its own bridge, it removes docker0 of the real daemon.
                    "unshare",
                    "--net",
                    "dockerd",
                    f"--host={self.url}",
                    f"--data-root={self.folder}/data",
                    f"--exec-root={self.folder}/exec",
                    f"--pidfile={self.folder}/docker.pid",
                    "--bridge=none",
                    "--iptables=false",
                    "--ip-forward=false",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def _containerd_lives(self) -> bool:
        pid_file = self.folder / "exec/containerd/containerd.pid"
        return pid_file.exists() and Path("/proc", pid_file.read_text()).exists()

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.url.removeprefix("unix://"))
                probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b"200 OK" in probe.recv(100)
            except OSError:
                return False

    @contextlib.contextmanager
    def client(self) -> Iterator[DockerClient]:
        import docker

        with contextlib.closing(docker.DockerClient(self.url, timeout=120)) as client:
            yield client

    def load(self, image: Path) -> None:
        with self.client() as client, image.open("rb") as content:
            client.images.load(content)

    def kill(self) -> None:
        """Like kill -9: containerd and the containers keep running."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for _ in range(50):
            if not self._end_children():
                break
            time.sleep(0.1)
        for mount in sorted(_mounts_below(self.folder), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_children(self) -> bool:
        """Kill containerd and its shims; all of their command lines contain our folder."""
        found = False
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
                    found = True
        return found


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    places = [line.split()[1] for line in lines]
    return [place for place in places if place.startswith(f"{folder}/")]


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., PrivateDaemon]]:
    """Starts private daemons, which are removed after the test."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        unavailable("a daemon of our own needs root and dockerd")
    daemons: list[PrivateDaemon] = []

    def make(*, disk: str = "3g") -> PrivateDaemon:
        daemons.append(PrivateDaemon(disk=disk))
        daemons[-1].start()
        return daemons[-1]

    yield make
    for daemon in daemons:
        daemon.remove()
    forget_sockets()


@pytest.fixture(scope="session")
def saved_tiny_image(
    docker_client: DockerClient,
    tiny_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """The image of the tiny task as `docker save` writes it."""
    path = tmp_path_factory.mktemp("image") / "tiny.tar"
    with path.open("wb") as file:
        for chunk in docker_client.images.get(tiny_image).save(named=True):
            file.write(chunk)
    yield path
    path.unlink()
