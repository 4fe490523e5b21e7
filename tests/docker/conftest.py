"""What the tests with Docker share: a daemon, and the image of the tiny task."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import socket
import sys
import tarfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from docker import DockerClient

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "grading"))

BASE_IMAGE = "swebench-trainer/base:bookworm"
# The harness calls kill(1) at a deadline and gives up where there is none.
DOCKERFILE = f"""\
FROM {BASE_IMAGE}
RUN command -v /bin/kill || {{ printf '#!/bin/sh\\nkill "$@"\\n' > /bin/kill && chmod 755 /bin/kill; }}
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
    """A daemon that can die: a socket of our own in front of the real one's."""

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
