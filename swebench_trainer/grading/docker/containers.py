"""One container: start, upload files, run commands, inspect, kill.

The number of requests to the daemon is kept small. A container serves one candidate
and is never reused.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
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
from typing import Any, Literal

from swebench_trainer.grading.apply import APPLY_SECONDS
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.docker import keep_alive
from swebench_trainer.grading.docker.hosts import CONNECT_SECONDS
from swebench_trainer.grading.running_time import TICK, RunningTime
from swebench_trainer.grading.sandbox import (
    KILLED,
    MAX_PATHS,
    MAX_TEST_BYTES,
    OOM_KILLS,
    SETTLE_PAUSE,
    SETTLE_TRIES,
    CommandResult,
    Evidence,
    Files,
    TestFiles,
)

LABEL = "swebench-trainer"
"""Label of every container; its value is the name of the grader that owns it."""

SILENCE_SECONDS = 60.0
"""How long a daemon may be silent after a deadline before it counts as lost."""

SCRIPT = "eval.sh"
"""Path of the eval script in a sandbox."""

APPLY = "tmp/apply.sh"
"""Path of the script that applies the patch."""

HIDDEN_WRITES = (
    "the container's runtime hides what tests write; for gVisor, add "
    '"--overlay2=none" to `runtimeArgs` in /etc/docker/daemon.json'
)

MAX_STATE_BYTES = 1 << 16
"""Maximum output, in bytes, of a command that reads the state of a container."""

SETTLE_SECONDS = 2.0
"""How long a busy daemon takes to notice that a container has ended."""

FREE_BYTES = 16 << 20
"""With less free disk space than this, a failure may be due to a full disk."""

NOT_REGULAR = 0x8F280000
"""Bits of a mode, as the daemon's language writes it, that regular files lack."""

GONE, NOT_RUNNING = 404, 409
"""The daemon's status codes for a container that has ended."""

MEMORY_EVENTS = (
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
)
"""Files of a container's cgroup that count out-of-memory kills (v2, v1)."""

KERNEL_DIRS = ("/proc/", "/sys/", "/dev/")
"""Directories that the kernel provides; images have no files there."""


class LostError(Exception):
    """The container or its daemon is gone, and the patch is not to blame."""


@dataclass(frozen=True)
class ContainerLimits:
    """Resource limits of a container.

    Attributes:
        memory: Memory and swap together, such as `8g`.
        cpus: Cores; `None` for no limit.
        pids: Processes and threads.
        shm: Size of `/dev/shm`, such as `64m`.
        network: Whether the container has a network besides the loopback device.
        capabilities: Docker's default ones, or also `SYS_ADMIN` as in the harness.
        runtime: Name of the daemon's runtime; empty for its default.
    """

    memory: str
    cpus: float | None
    pids: int
    shm: str
    network: bool
    capabilities: Literal["default", "harness"] = "default"
    runtime: str = ""


class Container:
    """A running container without files of a candidate yet.

    Args:
        api: The SDK's `APIClient`.
        container_id: Its id on the daemon.
        life: Seconds until it exits on its own.
        sandboxed: Whether it has a runtime of its own, such as gVisor, which does not
            show files that arrive later: then it starts when it has its files.
    """

    def __init__(
        self, api: Any, container_id: str, life: float, *, sandboxed: bool = False
    ) -> None:
        self._api = api
        self._id = container_id
        self.sandboxed = sandboxed
        self._started = not sandboxed
        self._dies_at = time.monotonic() + life
        self._layer: Path | None = None
        self._first = 0

    def lives_for(self, seconds: float) -> bool:
        """Whether it will run for at least this many seconds."""
        return time.monotonic() + seconds < self._dies_at

    def put(self, files: Files) -> None:
        """Upload files, owned by root."""
        with translate_losses():
            self._api.put_archive(self._id, "/", archive(files))
            if not self._started:
                self._api.start(self._id)
                self._started = True

    def run(
        self, command: str, workdir: str, seconds: float, log: CappedLog
    ) -> CommandResult:
        """Run a shell command as root; kill the container at the deadline.

        Raises:
            LostError: The container ended for a reason other than the deadline and
                lack of memory.
            OSError: The disk is full.
        """
        with translate_losses():
            # One pipe for both streams keeps their lines in order.
            command = f"exec 2>&1; {command}"
            created = self._api.exec_create(
                self._id, ["sh", "-c", command], user="root", workdir=workdir
            )
            with self._deadline(seconds, created["Id"]) as expired:
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
        """The state of the container on the daemon.

        Args:
            settle: Whether to wait until the daemon notices that the container was
                killed, because its commands end first.
        """
        deadline = time.monotonic() + (SETTLE_SECONDS if settle else 0)
        while True:
            container = self._api.inspect_container(self._id)
            state: Mapping[str, Any] = container["State"]
            if not state["Running"] or time.monotonic() >= deadline:
                self._layer = _layer(container)
                self._first = state["Pid"] or self._first
                return state
            time.sleep(0.1)

    def _oom_kills(self, pid: int) -> bool:
        """Whether the kernel has killed a process in it for lack of memory.

        The daemon reports only kills of the container's first process.
        """
        events = _memory_events(pid, self._id)
        if events is None:  # the daemon runs on another machine
            events = self._read_state(f"cat {' '.join(MEMORY_EVENTS)} 2> /dev/null")
        return bool(OOM_KILLS.search(events))

    def _read_state(self, command: str) -> str:
        """Output of a command, cut off, because the candidate may have replaced it.

        Empty if it does not start, because the candidate may have left no process free.
        """
        output = b""
        with ignore_docker_errors():
            created = self._api.exec_create(
                self._id, ["sh", "-c", command], user="root"
            )
            with self._deadline(SILENCE_SECONDS, created["Id"]):
                for chunk in self._output(created["Id"], SILENCE_SECONDS):
                    output += chunk[:MAX_STATE_BYTES]
                    if len(output) >= MAX_STATE_BYTES:
                        break
        return output.decode(errors="replace")

    @contextlib.contextmanager
    def _deadline(self, seconds: float, exec_id: str) -> Iterator[threading.Event]:
        """Kill the container if the command is still running after this many seconds.

        Yields:
            An event that is set if the container was killed.
        """
        expired, done = threading.Event(), threading.Event()

        def watch() -> None:
            time_used = RunningTime()
            while (left := seconds - time_used.seconds()) > 0:
                if done.wait(min(left, TICK)):
                    return
            # A command may have ended although its output is still arriving.
            if not self._runs(exec_id) and done.wait(SILENCE_SECONDS):
                return
            expired.set()
            with ignore_docker_errors():
                self.kill()

        watcher = threading.Thread(target=watch, name="deadline", daemon=True)
        watcher.start()
        try:
            yield expired
        finally:
            done.set()
            watcher.join()

    def _runs(self, exec_id: str) -> bool:
        """Whether a command is running, as far as the daemon knows."""
        with ignore_docker_errors():
            return bool(self._api.exec_inspect(exec_id)["Running"])
        return True

    def _output(self, exec_id: str, seconds: float) -> Iterator[bytes]:
        """Start an exec and yield its output as it arrives.

        The SDK's `exec_start` sometimes loses the first bytes in its own buffer, and
        does not close its connection.
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
        """Kill every process in it. A container that has ended already is fine.

        Raises:
            LostError: The state of its processes is unknown.
        """
        from docker.errors import APIError

        with translate_losses():
            try:
                self._api.kill(self._id)
            except APIError as error:
                if error.status_code != NOT_RUNNING:
                    raise

    def remove(self) -> None:
        """Remove it by SIGKILL. A container that is gone already is fine."""
        with ignore_docker_errors():
            self._api.remove_container(self._id, force=True, v=True)

    def changed(self) -> Iterator[str]:
        """Absolute paths of the files that differ from the image.

        The daemon takes half a second to compare the whole image. Root on the daemon's
        machine can read the container's writable layer instead.
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

    def running(self) -> tuple[str, ...]:
        """Names of its processes besides the first one and those that are ending.

        Empty if the daemon cannot list them.
        """
        if self.sandboxed:  # the daemon sees only the runtime
            return ()
        names: tuple[str, ...] = ()
        for _ in range(SETTLE_TRIES):
            with ignore_docker_errors():
                found = self._api.top(self._id, "-eo pid,stat,comm")["Processes"] or ()
                rows = [" ".join(row).split(maxsplit=2) for row in found]
                names = tuple(
                    sorted(
                        row[2]
                        for row in rows
                        if row[0] != str(self._first) and not row[1].startswith("Z")
                    )
                )
            if not names:
                break
            time.sleep(SETTLE_PAUSE)
        return names[:MAX_PATHS]

    def test_file(self, path: str) -> tuple[str, int | None]:
        """Digest of a file and when it changed, in nanoseconds since 1970.

        A word instead of the digest for anything but a small regular file. The time is
        `None` if the container's writable layer is not readable.
        """
        if self._layer is not None:
            return _digest_below(self._layer, path)
        from docker.errors import NotFound

        with translate_losses():
            try:
                stream, state = self._api.get_archive(self._id, f"/{path}")
            except NotFound:
                self._api.inspect_container(self._id)  # fails if the container is gone
                return "missing", None
            with contextlib.closing(stream):
                if state["mode"] & NOT_REGULAR:
                    return "no regular file", None
                if state["size"] > MAX_TEST_BYTES:
                    return f"{state['size']} bytes", None
                packed = io.BytesIO(b"".join(stream))
        with tarfile.open(fileobj=packed) as archived:
            file = archived.extractfile(archived.getmembers()[0])
            content = file.read() if file is not None else b""
        return hashlib.sha256(content).hexdigest(), None

    def stamp(self, path: str) -> tuple[int, int] | None:
        """Metadata that no program in it can restore after writing to a file.

        `None` if the container's writable layer is not readable.
        """
        if self._layer is None:
            return None
        try:
            state = (self._layer / path).lstat()
        except OSError:
            return (0, 0)
        return state.st_ino, state.st_ctime_ns

    def holds(self, path: str, content: bytes) -> bool:
        """Whether a regular file has this content.

        The candidate may have replaced it by a file of any size or by a device, so
        only a regular file of the expected size is read.
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
            entry = archived.getmember(PurePosixPath(path).name)
            file = archived.extractfile(entry) if entry.isreg() else None
            return file is not None and file.read() == content


@dataclass
class DockerSandbox:
    """A container with a candidate's files; see `Sandbox`."""

    container: Container
    workdir: str
    files: Files
    _stamp: tuple[int, int] | None = None

    def apply(self, log: CappedLog) -> CommandResult:
        """See `Sandbox.apply`."""
        return self._run("exec sh /tmp/apply.sh", APPLY_SECONDS, log)

    def test(self, log: CappedLog, timeout: float) -> CommandResult:
        """See `Sandbox.test`."""
        self._stamp = self.container.stamp(SCRIPT)
        return self._run("exec /bin/bash /eval.sh", timeout, log)

    def inspect(self, tests: TestFiles) -> Evidence:
        """See `Sandbox.inspect`."""
        running = self.container.running()
        self.container.kill()
        if self._hides_writes():
            raise OSError(HIDDEN_WRITES)
        same = self.container.holds(SCRIPT, self.files[SCRIPT])
        # A script that was changed and restored has the same content, but a new stamp.
        untouched = self.container.stamp(SCRIPT) == self._stamp
        workdir = self.workdir.strip("/")
        files = {p: self.container.test_file(f"{workdir}/{p}") for p in tests.paths}
        return Evidence(
            changed_outside(self.container.changed(), self.workdir, self.files),
            script_intact=same and (untouched or self._stamp is None),
            tests={path: digest for path, (digest, _) in files.items()},
            rewritten=tuple(
                path
                for path, (_, changed) in files.items()
                if changed and tests.since and changed > tests.since
            ),
            running=running,
        )

    def _hides_writes(self) -> bool:
        """Whether the script that applied the patch seems to exist; it deletes itself."""
        if not self.container.sandboxed or APPLY not in self.files:
            return False
        return self.container.holds(APPLY, self.files[APPLY])

    def _run(self, command: str, seconds: float, log: CappedLog) -> CommandResult:
        return self.container.run(command, self.workdir, seconds, log)


def start_container(
    api: Any,
    image_id: str,
    limits: ContainerLimits,
    *,
    owner: str,
    life: float,
    architecture: str,
) -> Container:
    """Start a container like the harness's, without the image's entrypoint.

    Args:
        api: The SDK's `APIClient`.
        image_id: Id of the image.
        limits: Resource limits.
        owner: Value of its label.
        life: Seconds until it exits on its own, in case this process is killed.
        architecture: Architecture of the daemon.
    """
    with translate_losses(image_may_go=True):
        created = api.create_container(
            image_id,
            entrypoint=[keep_alive.PATH],
            name=f"swebench-trainer-{uuid.uuid4().hex[:16]}",
            user="root",
            labels={LABEL: owner},
            network_disabled=not limits.network,
            host_config=_host_config(api, limits),
        )
        sandboxed = bool(limits.runtime)
        container = Container(api, created["Id"], life, sandboxed=sandboxed)
        try:
            program = keep_alive.program(architecture, life)
            files = {keep_alive.PATH.lstrip("/"): program}
            api.put_archive(created["Id"], "/", archive(files, mode=0o755))
            if not sandboxed:
                api.start(created["Id"])
        except Exception:  # on any error, remove the created container
            container.remove()
            raise
    return container


def _host_config(api: Any, limits: ContainerLimits) -> Any:
    isolation: dict[str, Any] = {"security_opt": ["no-new-privileges"]}
    if limits.capabilities == "harness":
        isolation = {"cap_add": ["SYS_ADMIN"]}
    return api.create_host_config(
        mem_limit=limits.memory,
        memswap_limit=limits.memory,
        nano_cpus=limits.cpus and int(limits.cpus * 1e9),
        pids_limit=limits.pids,
        shm_size=limits.shm,
        runtime=limits.runtime or None,
        **isolation,
    )


def remove_containers(api: Any, owner: str) -> None:
    """Remove every container with this label, including running ones."""
    labelled = {"label": f"{LABEL}={owner}"}
    for found in api.containers(all=True, filters=labelled):
        Container(api, found["Id"], 0).remove()


def archive(files: Files, mode: int = 0o644) -> bytes:
    """A tar archive of files owned by root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = mode
            entry.mtime = int(time.time())
            packed.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def changed_outside(
    paths: Iterator[str], workdir: str, given: Files
) -> tuple[str, ...]:
    """Changed files outside the repository, except `given` files and kernel files."""
    ours = {f"/{path}" for path in given}
    inside = (workdir.rstrip("/") + "/", *KERNEL_DIRS)
    kept = (p for p in paths if p not in ours and not p.startswith(inside))
    return tuple(sorted(itertools.islice(kept, MAX_PATHS)))


def _memory_events(pid: int, container_id: str) -> str | None:
    """The memory events of a container; `None` if it runs on another kernel."""
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
    """Suppress errors during cleanup of containers or daemons that may be gone."""
    from docker.errors import DockerException

    # The client's own connection errors are OSErrors.
    return contextlib.suppress(DockerException, OSError, LostError)


@contextlib.contextmanager
def translate_losses(*, image_may_go: bool = False) -> Iterator[None]:
    """Turn the SDK's errors about a lost container or daemon into `LostError`."""
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
    """The writable layer of a container, if this process can read it."""
    driver = container.get("GraphDriver") or {}
    upper = (driver.get("Data") or {}).get("UpperDir")
    if driver.get("Name") != "overlay2" or not upper:
        return None
    readable = os.geteuid() == 0 and Path(upper).is_dir()
    return Path(upper) if readable else None


def _files_below(layer: Path) -> Iterator[str]:
    """Files of an overlay's upper layer. A character device marks a deleted file."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(f"{layer}{folder}"))
        except OSError:  # a path too long to read is suspicious as well
            yield _text(folder)
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                yield _text(path)


def _digest_below(layer: Path, path: str) -> tuple[str, int]:
    """Digest and change time of a file in an overlay's upper layer.

    Links that the candidate made are not followed: they would lead to the host's files.
    """
    *folders, name = path.split("/")
    with contextlib.ExitStack() as opened:
        here = os.open(layer, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, here)
        try:
            for folder in folders:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                here = os.open(folder, flags, dir_fd=here)
                opened.callback(os.close, here)
            state = os.stat(name, dir_fd=here, follow_symlinks=False)
            if not stat.S_ISREG(state.st_mode):
                return "no regular file", state.st_ctime_ns
            if state.st_size > MAX_TEST_BYTES:
                return f"{state.st_size} bytes", state.st_ctime_ns
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=here)
            with os.fdopen(file, "rb") as content:
                digest = hashlib.sha256(content.read()).hexdigest()
            return digest, state.st_ctime_ns
        except OSError:  # a missing file, a file or a link instead of a folder
            return "missing", 0


def _text(path: str) -> str:
    """A path as valid text, with undecodable bytes replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def _holds(path: Path, content: bytes) -> bool:
    """Whether a regular file has this content. All its writers have been killed."""
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size != len(content):
            return False
        return path.read_bytes() == content
    except OSError:
        return False
