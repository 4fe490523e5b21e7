"""Host side of a sandbox: start `sandbox_init.py`, talk to it, end it."""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swebench_trainer.grading.apply import APPLY_SECONDS
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.namespace.cgroup import SandboxCgroup
from swebench_trainer.grading.running_time import TICK, RunningTime
from swebench_trainer.grading.sandbox import CommandResult, Evidence, Files, TestFiles

SANDBOX = Path(__file__).with_name("sandbox_init.py")
START_SECONDS = 60.0
"""Maximum time to start a sandbox."""
INSPECT_SECONDS = 60.0
LAST_SECONDS = 2.0
"""How long to wait for the last output of killed processes."""
CHUNK = 1 << 16


@dataclass(frozen=True)
class SandboxRoot:
    """The filesystem and environment of a sandbox.

    Attributes:
        environment: Variables of every process in it.
        etc: Files that it receives in addition to the candidate's `Files`.
        rootfs: Directory with its root filesystem. If empty, the root consists of the
            host's programs, with the following attributes:
        repository: Directory to mount at the workdir.
        copy: Whether to copy the repository, because overlays are not allowed.
        host_dirs: Directories of the host to mount in addition to `/usr`.
    """

    environment: Mapping[str, str]
    etc: Files
    rootfs: str = ""
    repository: str = ""
    copy: bool = False
    host_dirs: tuple[str, ...] = ()


@dataclass(frozen=True)
class SandboxLimits:
    """Resource limits of a sandbox.

    Attributes:
        memory: Bytes of the whole sandbox with a cgroup, of each process without.
        pids: Processes and threads.
        disk: Bytes of its files, which are kept in memory and count there too.
        shm: Bytes of its `/dev/shm`.
        network: Whether it has the host's network.
    """

    memory: int
    pids: int
    disk: int
    shm: int
    network: bool = False


@dataclass(eq=False)
class NamespaceSandbox:
    """A running sandbox; see `Sandbox`.

    Attributes:
        process: Handle (pidfd) of its outermost process.
        control: Socket to its pid 1.
        apply_output: Read end of the output of `apply.sh`.
        test_output: Read end of the output of `eval.sh`.
        errors: File with its error messages.
        cgroup: Its cgroup, if it has one.
    """

    process: int
    control: socket.socket
    apply_output: int
    test_output: int
    errors: int
    cgroup: SandboxCgroup | None

    def wait_until_ready(self) -> None:
        """Wait until the sandbox has started.

        Raises:
            OSError: It did not start.
        """
        if self._answer(START_SECONDS) != b"ready\n":
            self.kill()
            lines = os.pread(self.errors, CHUNK, 0).decode(errors="replace")
            reason = [*lines.strip().splitlines(), "no error message"][0]
            raise OSError(f"the sandbox did not start: {reason}")

    def apply(self, log: CappedLog) -> CommandResult:
        """See `Sandbox`."""
        return self._run(b"a", self.apply_output, log, APPLY_SECONDS)

    def test(self, log: CappedLog, timeout: float) -> CommandResult:
        """See `Sandbox`."""
        return self._run(b"t", self.test_output, log, timeout)

    def inspect(self, tests: TestFiles) -> Evidence:
        """See `Sandbox`. All processes were killed when the tests ended.

        Raises:
            OSError: The sandbox does not respond.
        """
        asked = b"".join(os.fsencode(path) + b"\0" for path in tests.paths)
        self.control.settimeout(INSPECT_SECONDS)
        self.control.sendall(b"i" + asked + b"\0")
        answer = bytearray()
        while not answer.endswith(b"\0end\0"):
            more = self._answer(INSPECT_SECONDS)
            if not more:
                raise OSError("the sandbox died before it could be inspected")
            answer += more
        text = answer.decode("utf-8", "replace")
        intact, count, *fields = text.split("\0")[:-2]
        running, fields = fields[: int(count)], fields[int(count) :]
        number = len(tests.paths)
        digests, times, changed = (
            fields[:number],
            fields[number : 2 * number],
            fields[2 * number :],
        )
        return Evidence(
            tuple(changed),
            intact == "intact",
            tests=dict(zip(tests.paths, digests, strict=True)),
            rewritten=tuple(
                path
                for path, when in zip(tests.paths, times, strict=True)
                if tests.since and int(when) > tests.since
            ),
            running=tuple(running),
        )

    def kill(self) -> None:
        """End the sandbox: all processes in it die with its pid 1."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)

    def _answer(self, seconds: float) -> bytes:
        """The next message of the sandbox; empty if it has ended or takes too long."""
        self.control.settimeout(seconds)
        with contextlib.suppress(OSError):
            return self.control.recv(CHUNK)
        return b""

    def _run(
        self, word: bytes, output: int, log: CappedLog, seconds: float
    ) -> CommandResult:
        """Run a script until its end or the deadline, and log its output."""
        with contextlib.suppress(OSError):  # it has ended, so no answer will come
            self.control.send(word)
        poll = select.poll()
        poll.register(output, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        answer: bytes | None = None
        time_used, left = RunningTime(), seconds
        while answer is None and left > 0:
            left = seconds - time_used.seconds()
            ready = dict(poll.poll(max(min(left, TICK), 0) * 1000))
            if output in ready and not _copy(output, log):
                poll.unregister(output)
            if self.control.fileno() in ready:
                answer = self._answer(0)
        if not answer:
            self.kill()
        # It answers after all its processes are dead, so the output has an end.
        poll = select.poll()
        poll.register(output, select.POLLIN)
        last = time.monotonic() + LAST_SECONDS
        while (left := last - time.monotonic()) > 0 and poll.poll(left * 1000):
            if not _copy(output, log):
                break
        oom = self.cgroup.out_of_memory() if self.cgroup is not None else None
        return CommandResult(int(answer) if answer else None, answer is None, oom)


class Launcher:
    """Starts sandboxes. They all end when it is closed, or when this process ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process that forks sandboxes, and every sandbox."""
        with self._lock:
            self._end()

    @contextlib.contextmanager
    def launch(
        self,
        root: SandboxRoot,
        workdir: str,
        files: Files,
        limits: SandboxLimits,
        cgroup: SandboxCgroup | None,
    ) -> Iterator[NamespaceSandbox]:
        """Start a sandbox, and end it with the context.

        Args:
            root: Its filesystem and environment.
            workdir: Working directory of the scripts.
            files: Files that it receives, such as `eval.sh`.
            limits: Resource limits.
            cgroup: Cgroup for it to enter, with limits already set; `None` if this
                user may not create cgroups, so that limits apply to each process.

        Raises:
            OSError: It does not start.
        """
        settings: dict[str, Any] = {
            **vars(root),
            **vars(limits),
            "environment": dict(root.environment),
            "etc": dict(root.etc),
            "files": dict(files),
            "workdir": workdir,
            "cgroups": cgroup.entrances if cgroup else [],
        }
        with contextlib.ExitStack() as ours:
            sandbox = self._start(ours, marshal.dumps(settings), cgroup)
            ours.callback(sandbox.kill)
            sandbox.wait_until_ready()
            yield sandbox

    def _start(
        self,
        ours: contextlib.ExitStack,
        settings: bytes,
        cgroup: SandboxCgroup | None,
    ) -> NamespaceSandbox:
        """Pass the ends of the pipes to a new sandbox, and receive its process handle.

        Args:
            ours: Closes our ends.
            settings: Marshalled settings of the sandbox.
            cgroup: Its cgroup, if it has one.
        """
        control, theirs = socket.socketpair()
        apply_output, apply_end = os.pipe()
        test_output, test_end = os.pipe()
        errors = os.memfd_create("errors")
        ours.enter_context(control)
        for descriptor in (apply_output, test_output, errors):
            ours.callback(os.close, descriptor)
        with (
            theirs,
            os.fdopen(apply_end, "wb"),
            os.fdopen(test_end, "wb"),
            os.fdopen(os.memfd_create("settings"), "w+b") as file,
        ):
            file.write(settings)
            file.seek(0)
            ends = [file.fileno(), theirs.fileno(), apply_end, test_end, errors]
            process = self._request(ends)
        ours.callback(os.close, process)
        return NamespaceSandbox(
            process, control, apply_output, test_output, errors, cgroup
        )

    def _request(self, files: list[int]) -> int:
        """Have a sandbox forked; returns a handle of its process.

        Raises:
            OSError: The machine cannot start another process.
        """
        with self._lock:
            for _ in range(2):  # the forking process may have been killed
                requests = self._connection()
                with contextlib.suppress(ConnectionError):
                    socket.send_fds(requests, [b"s"], files)
                    answer, handles, _, _ = socket.recv_fds(requests, CHUNK, 1)
                    if handles:
                        return handles[0]
                    if answer:
                        raise OSError(answer.decode(errors="replace"))
                self._end()
            raise OSError("the process that forks sandboxes exits at once")

    def _connection(self) -> socket.socket:
        if self._requests is None:
            self._requests, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(SANDBOX), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_loader(),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        return self._requests

    def _end(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def interpreter_dirs() -> tuple[str, ...]:
    """Directories outside `/usr` with this interpreter and its packages."""
    prefixes = {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)}
    return tuple(sorted(p for p in prefixes if not f"{p}/".startswith("/usr/")))


def _copy(output: int, log: CappedLog) -> bool:
    """Copy available output to the log; false at its end."""
    chunk = os.read(output, CHUNK)
    log.write(chunk)
    return bool(chunk)


def _loader() -> dict[str, str]:
    """Environment that a non-standard interpreter may need to start."""
    return {n: os.environ[n] for n in ("LD_LIBRARY_PATH",) if n in os.environ}
