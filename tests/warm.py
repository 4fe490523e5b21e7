"""Programs in processes of their own, forked from one that has the imports done.

Most of a small run is Python importing the harness, torch, and transformers. A server process
imports them once; each run is a fork of it, with its own directory, environment, and output, so
it can be killed like any other process.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
HUB = ("HF_HOME", "HF_HUB_CACHE")
"""Variables that the Hub client reads when it is imported: too late in a fork."""


class WarmProcess:
    """A forked program, with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, server: WarmServer, pid: int, out: IO[str], err: IO[str]):
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._files = (out, err)
        self._texts = ["", ""]
        self._readers = [
            threading.Thread(target=self._read, args=(number,), daemon=True)
            for number in range(2)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, number: int) -> None:
        with self._files[number] as file:
            self._texts[number] = file.read()

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.exit_code(self.pid, timeout=0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        if self.returncode is None:
            self.returncode = self._server.exit_code(self.pid, timeout)
            if self.returncode is None:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        for reader in self._readers:
            reader.join()
        return self._texts[0], self._texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmServer:
    """Forks programs on request."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._codes: dict[int, int] = {}
        self._pending = b""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
            )

    def start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> WarmProcess:
        """Starts `python -m MODULE ARGUMENTS…` in a folder; `command` is without `python -m`."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        order = {"command": command, "cwd": str(folder), "env": dict(environment)}
        text = json.dumps(order).encode()
        header = len(text).to_bytes(4, "big")
        socket.send_fds(self._socket, [header], [out_end, err_end])
        self._socket.sendall(text)
        os.close(out_end)
        os.close(err_end)
        pid = self._message("started")
        return WarmProcess(self, pid, os.fdopen(out), os.fdopen(err))

    def exit_code(self, pid: int, timeout: float | None) -> int | None:
        """The exit code as `Popen.returncode` has it, or `None` after the timeout in seconds."""
        while pid not in self._codes:
            if not select.select([self._socket], [], [], timeout)[0]:
                return None
            self._message("")
        return self._codes[pid]

    def _message(self, wanted: str) -> int:
        """Reads messages until the wanted one; exit codes are remembered on the way."""
        while True:
            while b"\n" not in self._pending:
                received = self._socket.recv(65536)
                if not received:
                    raise RuntimeError("the process that runs are forked from has died")
                self._pending += received
            line, _, self._pending = self._pending.partition(b"\n")
            message = json.loads(line)
            if "code" in message:
                self._codes[message["pid"]] = message["code"]
            if wanted in message or not wanted:
                return int(message.get(wanted, 0))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def serve(channel: socket.socket) -> None:
    """Forks a program for each order until the other end closes the channel."""
    wake, wake_end = os.pipe()
    os.set_blocking(wake_end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([channel, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _report_ended(channel)
        if channel in ready:
            header, ends, _, _ = socket.recv_fds(channel, 4, 2)
            if not header:
                return
            order = json.loads(_exactly(channel, int.from_bytes(header, "big")))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (wake, wake_end, channel.fileno()):
                    os.close(descriptor)
                _run(order, ends)
            for end in ends:
                os.close(end)
            channel.sendall(json.dumps({"started": pid}).encode() + b"\n")


def _report_ended(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        message = {"pid": pid, "code": os.waitstatus_to_exitcode(status)}
        channel.sendall(json.dumps(message).encode() + b"\n")


def _exactly(channel: socket.socket, size: int) -> bytes:
    text = b""
    while len(text) < size:
        text += channel.recv(size - len(text))
    return text


def _run(order: dict[str, Any], ends: list[int]) -> None:
    """Becomes the program: never returns."""
    code = 1
    try:
        for number, end in enumerate(ends, start=1):
            os.dup2(end, number)
            os.close(end)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        places = order["env"].get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = ["", *(place for place in places if place not in sys.path)]
        module, *arguments = order["command"]
        sys.argv[1:] = arguments
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(code)


def _leave(code: int) -> None:
    """Ends like an interpreter does: exit handlers, then output."""
    import atexit
    import logging

    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def warm_up() -> None:
    """Imports the libraries that most runs need."""
    import swebench.harness.grading  # noqa: F401 - for the forks

    from swebench_trainer import builtin, cli, pipeline  # noqa: F401 - for the forks

    # trl imports torch, transformers, peft and datasets only when a name of it is used.
    # peft and bitsandbytes look for GPUs, and CUDA does not survive a fork.
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        from trl import SFTTrainer  # noqa: F401 - for the forks

    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warm_up()
    serve(socket.socket(fileno=int(sys.argv[1])))
