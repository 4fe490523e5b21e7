"""The host's side of a sandbox: starts `sandbox_init.py`, talks with it, ends it."""

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swebench_trainer.grading.apply import APPLY_SECONDS
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.namespace.cgroup import SandboxCgroup
from swebench_trainer.grading.sandbox import CommandResult, Evidence, Files

SANDBOX = Path(__file__).with_name("sandbox_init.py")
START_SECONDS = 60.0
"""Longest time that a sandbox may take to build."""
INSPECT_SECONDS = 60.0
LAST_SECONDS = 2.0
"""How long the last output of killed processes is waited for."""
CHUNK = 1 << 16


@dataclass(frozen=True)
class SandboxRoot:
    """What a sandbox sees.

    Attributes:
        environment: Variables of every process in it.
        etc: Files that it gets beside the candidate's, as the engine's `Files`.
        rootfs: Directory that is its root, by an overlay; or else
        repository: what is put at the workdir of a root of the host's programs,
        copy: as a copy, where the machine has no overlays for us, and
        host_dirs: what is shown beside `/usr`, where it is.
    """

    environment: Mapping[str, str]
    etc: Files
    rootfs: str = ""
    repository: str = ""
    copy: bool = False
    host_dirs: tuple[str, ...] = ()


@dataclass(frozen=True)
class SandboxLimits:
    """What a sandbox may use.

    Attributes:
        memory: Bytes; of everything in it with a cgroup, of a process without.
        pids: Processes and threads.
        disk: Bytes of its files, which lie in memory and count there too.
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
    """A running sandbox; see `engine.Sandbox`."""

    process: int
    control: socket.socket
    apply_output: int
    test_output: int
    complaints: int
    group: SandboxCgroup | None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def wait_until_ready(self) -> None:
        """Waits for the sandbox to be built.

        Raises:
            OSError: It was not.
        """
        if self._answer(START_SECONDS) != b"ready\n":
            self.kill()
            lines = os.pread(self.complaints, CHUNK, 0).decode(errors="replace")
            reason = [*lines.strip().splitlines(), "no reason given"][0]
            raise OSError(f"the sandbox did not start: {reason}")

    def apply(self, log: CappedLog) -> CommandResult:
        """See `engine.Sandbox`."""
        return self._run(b"a", self.apply_output, log, APPLY_SECONDS)

    def test(self, log: CappedLog, timeout: float) -> CommandResult:
        """See `engine.Sandbox`."""
        return self._run(b"t", self.test_output, log, timeout)

    def inspect(self) -> Evidence:
        """See `engine.Sandbox`; everything was killed when the tests ended.

        Raises:
            OSError: The sandbox gives no answer.
        """
        self.control.send(b"i")
        answer = bytearray()
        while not answer.endswith(b"\0end\0"):
            more = self._answer(INSPECT_SECONDS)
            if not more:
                raise OSError("the sandbox vanished before anybody could look")
            answer += more
        intact, *changed = map(os.fsdecode, bytes(answer).split(b"\0")[:-2])
        return Evidence(tuple(changed), intact == "intact")

    def kill(self) -> None:
        """Ends the sandbox: its pid 1 takes every process in it along."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if not self._closed:
                signal.pidfd_send_signal(self.process, signal.SIGKILL)

    def close(self) -> None:
        """Ends the sandbox and lets go of it."""
        self.kill()
        with self._lock:
            self._closed = True
        self.control.close()
        for file in (
            self.process,
            self.apply_output,
            self.test_output,
            self.complaints,
        ):
            os.close(file)

    def _answer(self, seconds: float) -> bytes:
        """What the sandbox says next; empty when it has ended or takes too long."""
        self.control.settimeout(seconds)
        with contextlib.suppress(OSError):
            return self.control.recv(CHUNK)
        return b""

    def _run(
        self, word: bytes, output: int, log: CappedLog, seconds: float
    ) -> CommandResult:
        """Has a script run to its end or the deadline; its output goes to the log."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):  # gone: there will be no answer
            self.control.send(word)
        poll = select.poll()
        poll.register(output, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        answer: bytes | None = None
        while answer is None and (left := deadline - time.monotonic()) > 0:
            ready = dict(poll.poll(left * 1000))
            if output in ready and not _copy(output, log):
                poll.unregister(output)
            if self.control.fileno() in ready:
                answer = self._answer(0)
        if not answer:
            self.kill()
        # It answers when every process in it is dead, so there is an end to read to.
        poll = select.poll()
        poll.register(output, select.POLLIN)
        last = time.monotonic() + LAST_SECONDS
        while (left := last - time.monotonic()) > 0 and poll.poll(left * 1000):
            if not _copy(output, log):
                break
        oom = self.group.out_of_memory() if self.group is not None else None
        return CommandResult(int(answer) if answer else None, answer is None, oom)


class Launcher:
    """Starts sandboxes, which all end when it is closed, or when this process ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process that forks sandboxes, and every sandbox."""
        with self._lock:
            self._end()

    @contextlib.contextmanager
    def launch(
        self,
        root: SandboxRoot,
        workdir: str,
        files: Files,
        limits: SandboxLimits,
        group: SandboxCgroup | None,
    ) -> Iterator[NamespaceSandbox]:
        """Starts a sandbox, which ends with the context at the latest.

        Args:
            root: What it sees.
            workdir: Where the scripts run.
            files: What it is given, such as `eval.sh`.
            limits: What it may use.
            group: Cgroups that it is to enter, with their limits set; `None` where
                there are none to be had, which leaves the limits of single processes.

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
            "cgroups": group.entrances if group else [],
        }
        sandbox = self._start(marshal.dumps(settings), group)
        try:
            sandbox.wait_until_ready()
            yield sandbox
        finally:
            sandbox.close()

    def _start(self, settings: bytes, group: SandboxCgroup | None) -> NamespaceSandbox:
        """Hands over the ends of the pipes, and takes a handle of the process."""
        ours, theirs = socket.socketpair()
        apply_output, apply_end = os.pipe()
        test_output, test_end = os.pipe()
        complaints = os.memfd_create("complaints")
        with theirs, os.fdopen(os.memfd_create("settings"), "w+b") as file:
            file.write(settings)
            file.seek(0)
            ends = [file.fileno(), theirs.fileno(), apply_end, test_end, complaints]
            try:
                process = self._request(ends)
            except BaseException:
                ours.close()
                for descriptor in (apply_output, test_output, complaints):
                    os.close(descriptor)
                raise
            finally:
                os.close(apply_end)
                os.close(test_end)
        return NamespaceSandbox(
            process, ours, apply_output, test_output, complaints, group
        )

    def _request(self, files: list[int]) -> int:
        """Has a sandbox forked; returns a handle of its process.

        Raises:
            OSError: The machine has no room for another process.
        """
        with self._lock:
            for _ in range(2):  # what forks them may have been killed
                requests = self._connection()
                with contextlib.suppress(ConnectionError):
                    socket.send_fds(requests, [b"s"], files)
                    answer, handles, _, _ = socket.recv_fds(requests, CHUNK, 1)
                    if handles:
                        return handles[0]
                    if answer:
                        raise OSError(answer.decode(errors="replace"))
                self._end()
            raise OSError("the process that forks sandboxes ends at once")

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
    """Where this interpreter and its packages lie, unless `/usr` shows them anyway."""
    prefixes = {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)}
    return tuple(sorted(p for p in prefixes if not f"{p}/".startswith("/usr/")))


def _copy(output: int, log: CappedLog) -> bool:
    """Takes what there is of the output; false at its end."""
    chunk = os.read(output, CHUNK)
    log.write(chunk)
    return bool(chunk)


def _loader() -> dict[str, str]:
    """What an interpreter of an unusual place may need to start."""
    return {n: os.environ[n] for n in ("LD_LIBRARY_PATH",) if n in os.environ}
