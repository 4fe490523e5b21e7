"""One container: started, given its files, run twice, looked at, killed.

The daemon is spoken to in as few words as it takes. A container is fresh for each
candidate and never used again.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import re
import shutil
import stat
import struct
import tarfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.docker.hosts import CONNECT_SECONDS
from swebench_trainer.grading.sandbox import KILLED, CommandResult, Files

LABEL = "swebench-trainer"
"""Label of every container; its value names the grader that made it."""

MAX_PATHS = 10_000
"""Changed paths that are looked at; an honest run changes a handful."""

SILENCE_SECONDS = 60.0
"""What may pass after a deadline before a daemon that says nothing counts as lost."""

MAX_TOLD = 1 << 16
"""Bytes of what a container is asked about itself."""

SETTLE_SECONDS = 2.0
"""How long a daemon under load takes to notice that a container has ended."""

FREE_BYTES = 16 << 20
"""With less disk than this, what failed may have failed for want of it."""

GONE, NOT_RUNNING = 404, 409
"""What the daemon answers about a container that has ended."""

MEMORY_EVENTS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
)
"""Where a container's own cgroup tells of processes killed for want of memory (v2, v1)."""

KERNEL = ("/proc/", "/sys/", "/dev/")
"""What every container has of its own; no image has files there."""


class LostError(Exception):
    """The container, or the daemon that had it, is gone, through no fault of the patch."""


@dataclass(frozen=True)
class ContainerLimits:
    """What a container may use.

    Attributes:
        memory: Memory and swap together, such as `8g`.
        cpus: Cores; `None` does not limit them.
        pids: Processes and threads at once.
        shm: Size of `/dev/shm`, such as `64m`.
        network: Whether there is a network beside the loopback device.
    """

    memory: str
    cpus: float | None
    pids: int
    shm: str
    network: bool


class Container:
    """A container that runs, with nothing of ours in it yet.

    Args:
        api: The SDK's `APIClient`.
        container_id: The daemon's name for it.
        life: Seconds after which it ends by itself.
    """

    def __init__(self, api: Any, container_id: str, life: float) -> None:
        self._api = api
        self._id = container_id
        self._dies_at = time.monotonic() + life
        self._layer: Path | None = None

    def lives_for(self, seconds: float) -> bool:
        """Whether it will still be there in so many seconds."""
        return time.monotonic() + seconds < self._dies_at

    def put(self, files: Files) -> None:
        """Puts files into it, owned by root."""
        with translate_losses():
            self._api.put_archive(self._id, "/", archive(files))

    def run(
        self, command: str, workdir: str, seconds: float, log: CappedLog
    ) -> CommandResult:
        """Runs a shell command as root until its end or the deadline, which kills.

        Raises:
            LostError: The container ended, but neither the deadline nor want of
                memory ended it.
            OSError: There is no disk left.
        """
        with translate_losses():
            # One pipe for both streams, so that lines stay in order.
            command = f"exec 2>&1; {command}"
            created = self._api.exec_create(
                self._id, ["sh", "-c", command], user="root", workdir=workdir
            )
            with self._deadline(seconds) as expired:
                for chunk in self._output(created["Id"], seconds):
                    log.write(chunk)
            if expired.is_set():
                return CommandResult(timed_out=True)
            ended = self._api.exec_inspect(created["Id"])
            state = self._state(settle=ended["ExitCode"] == KILLED)
        if state["OOMKilled"] or (state["Running"] and self._oom_kills(state["Pid"])):
            return CommandResult(ended["ExitCode"], oom=True)
        if ended["Running"] or not state["Running"]:
            raise LostError("the container was killed from outside")
        if self._layer is not None and shutil.disk_usage(self._layer).free < FREE_BYTES:
            raise OSError(errno.ENOSPC, "the disk of the containers is full")
        return CommandResult(ended["ExitCode"])

    def _state(self, *, settle: bool) -> Mapping[str, Any]:
        """What the daemon knows of it.

        Args:
            settle: Whether to wait until the daemon has noticed an end from outside,
                which the commands in it notice first.
        """
        deadline = time.monotonic() + (SETTLE_SECONDS if settle else 0)
        while True:
            container = self._api.inspect_container(self._id)
            state: Mapping[str, Any] = container["State"]
            if not state["Running"] or time.monotonic() >= deadline:
                self._layer = _layer(container)
                return state
            time.sleep(0.1)

    def _oom_kills(self, pid: int) -> bool:
        """Whether the kernel has killed a process in it for want of memory.

        The daemon itself tells it of the first process alone.
        """
        told = _memory_events(pid, self._id)
        if told is None:  # the daemon is elsewhere
            told = self._told(f"cat {' '.join(MEMORY_EVENTS)} 2> /dev/null")
        return bool(re.search(r"^oom_kill [1-9]", told, re.MULTILINE))

    def _told(self, command: str) -> str:
        """The first output of a command that the candidate may have replaced."""
        output = b""
        with translate_losses():
            created = self._api.exec_create(
                self._id, ["sh", "-c", command], user="root"
            )
            with self._deadline(SILENCE_SECONDS):
                for chunk in self._output(created["Id"], SILENCE_SECONDS):
                    output += chunk[:MAX_TOLD]
                    if len(output) >= MAX_TOLD:
                        break
        return output.decode(errors="replace")

    @contextlib.contextmanager
    def _deadline(self, seconds: float) -> Iterator[threading.Event]:
        """Kills the container after so many seconds."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            with ignore_docker_errors():
                self.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            yield expired
        finally:
            timer.cancel()
            timer.join()

    def _output(self, exec_id: str, seconds: float) -> Iterator[bytes]:
        """Starts an exec and gives its output as it comes.

        The SDK's `exec_start` reads past its own buffer, which loses the first bytes
        now and then, and does not close its connection.
        """
        url = f"{self._api.base_url}/v{self._api.api_version}/exec/{exec_id}/start"
        with self._api.post(
            url,
            json={"Detach": False, "Tty": False},
            stream=True,
            timeout=(CONNECT_SECONDS, seconds + SILENCE_SECONDS),
        ) as response:
            self._api._raise_for_status(response)
            while len(header := response.raw.read(8)) == 8:
                (size,) = struct.unpack(">4xL", header)
                yield response.raw.read(size)

    def kill(self) -> None:
        """Ends every process in it; that it has ended already is fine.

        Raises:
            LostError: Nobody knows whether they have ended.
        """
        from docker.errors import APIError

        with translate_losses():
            try:
                self._api.kill(self._id)
            except APIError as error:
                if error.status_code != NOT_RUNNING:
                    raise

    def remove(self) -> None:
        """Removes it by SIGKILL; that it has gone already is fine."""
        with ignore_docker_errors():
            self._api.remove_container(self._id, force=True, v=True)

    def changed(self) -> Iterator[str]:
        """Absolute paths of the files that are not as the image has them.

        The daemon compares the whole image, which takes half a second; root on the
        daemon's machine can read the container's own layer instead.
        """
        if self._layer is not None:
            yield from _files_below(self._layer)
            return
        with translate_losses():
            changes = self._api.diff(self._id) or ()
        paths = {change["Path"] for change in changes}
        folders = {
            str(parent) for path in paths for parent in PurePosixPath(path).parents
        }
        yield from paths - folders

    def stamp(self, path: str) -> tuple[int, int] | None:
        """What no program in it can restore once it has written to a file.

        `None` where the container's own layer cannot be read.
        """
        if self._layer is None:
            return None
        try:
            state = (self._layer / path).lstat()
        except OSError:
            return (0, 0)
        return state.st_ino, state.st_ctime_ns

    def holds(self, path: str, content: bytes) -> bool:
        """Whether a plain file in its root directory has this content.

        It may be anything now, of any size, or a device: nothing else is opened.
        """
        if self._layer is not None:
            return _holds(self._layer / path, content)
        from docker.errors import NotFound

        with translate_losses():
            try:
                stream, state = self._api.get_archive(self._id, f"/{path}")
            except NotFound as error:
                if "No such container" in str(error.explanation):
                    raise
                return False
            with contextlib.closing(stream):
                if state["size"] != len(content):
                    return False
                packed = io.BytesIO(b"".join(stream))
        with tarfile.open(fileobj=packed) as archived:
            entry = archived.getmember(path)
            file = archived.extractfile(entry) if entry.isreg() else None
            return file is not None and file.read() == content


def start_container(
    api: Any, image_id: str, limits: ContainerLimits, *, owner: str, life: float
) -> Container:
    """Starts a container like the harness's, whatever the image's entrypoint.

    Args:
        api: The SDK's `APIClient`.
        image_id: What to make it from.
        limits: What it may use.
        owner: Value of its label.
        life: Seconds after which it ends by itself, should this process be killed.
    """
    # A test that kills every `sleep` it sees takes a second of its life, no more.
    wait = f"n={life:.0f}; while [ $((n -= 1)) -ge 0 ]; do sleep 1; done"
    with translate_losses(image_may_go=True):
        created = api.create_container(
            image_id,
            entrypoint=["/bin/sh", "-c"],
            command=[wait],
            name=f"swebench-trainer-{uuid.uuid4().hex[:16]}",
            user="root",
            labels={LABEL: owner},
            network_disabled=not limits.network,
            host_config=api.create_host_config(
                cap_add=["SYS_ADMIN"],
                mem_limit=limits.memory,
                memswap_limit=limits.memory,
                nano_cpus=limits.cpus and int(limits.cpus * 1e9),
                pids_limit=limits.pids,
                shm_size=limits.shm,
            ),
        )
        container = Container(api, created["Id"], life)
        try:
            api.start(created["Id"])
        except Exception:  # whatever it is, the created container must go
            container.remove()
            raise
    return container


def remove_containers(api: Any, owner: str) -> None:
    """Removes every container with this label, the running ones too."""
    labelled = {"label": f"{LABEL}={owner}"}
    for found in api.containers(all=True, filters=labelled):
        Container(api, found["Id"], 0).remove()


def archive(files: Files) -> bytes:
    """A tar archive of files that belong to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mtime = int(time.time())
            packed.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def outside(paths: Iterator[str], workdir: str, given: Files) -> tuple[str, ...]:
    """The changed files that are neither the repository's, ours, nor the kernel's."""
    ours = {f"/{path}" for path in given}
    inside = (workdir.rstrip("/") + "/", *KERNEL)
    kept = (p for p in paths if p not in ours and not p.startswith(inside))
    return tuple(sorted(itertools.islice(kept, MAX_PATHS)))


def _memory_events(pid: int, container_id: str) -> str | None:
    """What the kernel tells of a container's memory; `None` if it is not our kernel."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if container_id not in path:
            continue
        if controllers in ("", "memory"):
            file = Path(MEMORY_EVENTS[controllers == "memory"])
            with contextlib.suppress(OSError):
                return Path(f"{file.parent}{path}", file.name).read_text()
    return None


def ignore_docker_errors() -> contextlib.suppress:
    """Lets a clean-up pass whose container has gone, or whose daemon has."""
    from docker.errors import DockerException

    # The client's own connection errors are OSErrors.
    return contextlib.suppress(DockerException, OSError, LostError)


@contextlib.contextmanager
def translate_losses(*, image_may_go: bool = False) -> Iterator[None]:
    """Turns what the SDK says of a container or daemon that is gone into a loss."""
    from docker.errors import APIError
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except APIError as error:
        gone = error.status_code in (GONE, NOT_RUNNING)
        if gone and not image_may_go:
            raise LostError(f"the container is gone: {error.explanation}") from error
        raise
    except (RequestException, HTTPError, ConnectionError) as error:
        raise LostError(f"no connection to the daemon: {error}") from error


def _layer(container: Mapping[str, Any]) -> Path | None:
    """Where the daemon keeps what a container writes, if we may read it."""
    driver = container.get("GraphDriver") or {}
    upper = (driver.get("Data") or {}).get("UpperDir")
    if driver.get("Name") != "overlay2" or not upper:
        return None
    readable = os.geteuid() == 0 and Path(upper).is_dir()
    return Path(upper) if readable else None


def _files_below(layer: Path) -> Iterator[str]:
    """Files of an overlay's upper layer; a character device stands for a lost file."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(f"{layer}{folder}"))
        except OSError:  # a path too long to be read is a find, too
            yield _text(folder)
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                yield _text(path)


def _text(path: str) -> str:
    """A path as text that can be written, whatever its bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def _holds(path: Path, content: bytes) -> bool:
    """Whether a plain file has this content; nobody can write to it any more."""
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size != len(content):
            return False
        return path.read_bytes() == content
    except OSError:
        return False
