"""Programs in processes of their own, forked from one that has the imports done.

Most of a small run is Python importing the harness, torch, and transformers. A server process
imports them once for all workers of a test run; each program is a fork of it, with its own
directory, environment, and output, so it can be killed like any other process.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import pkgutil
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
"""Variables that the Hub client reads when it is imported: too late for a fork."""


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


class ServerDiedError(RuntimeError):
    """The process that programs are forked from has ended."""


class WarmServer:
    """Forks programs on request; the workers of a test run share one process for it.

    Attributes:
        hub: The cache of models that the programs have.
    """

    def __init__(self) -> None:
        self._codes: dict[int, int] = {}
        self._pending = b""
        self._process: subprocess.Popen[bytes] | None = None
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
        address = f"\0swebench-trainer-tests-{run}"  # abstract: leaves no file behind
        while True:
            self._serve_unless_served(address)
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(address)
                self.hub = Path(self._message("hub")["hub"])
                return
            except (ConnectionError, ServerDiedError):
                self._socket.close()
                if self._process is not None and self._process.wait():
                    raise  # Otherwise it ended with its last worker: start another.

    def _serve_unless_served(self, address: str) -> None:
        """Starts the process, unless another worker has: only one can bind the address."""
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(address)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return
            listener.listen()
            environment = {k: v for k, v in os.environ.items() if k not in HUB}
            environment |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())],
                pass_fds=[listener.fileno()],
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
        pid = self._message("started")["started"]
        self._codes.pop(pid, None)  # of an earlier program with the same id
        return WarmProcess(self, pid, os.fdopen(out), os.fdopen(err))

    def exit_code(self, pid: int, timeout: float | None) -> int | None:
        """The exit code as `Popen.returncode` has it, or `None` after the timeout in seconds."""
        while pid not in self._codes:
            if not select.select([self._socket], [], [], timeout)[0]:
                return None
            self._message("")
        return self._codes[pid]

    def _message(self, wanted: str) -> dict[str, Any]:
        """Reads messages until the wanted one; exit codes are remembered on the way."""
        while True:
            while b"\n" not in self._pending:
                received = self._socket.recv(65536)
                if not received:
                    raise ServerDiedError("no process to fork programs from")
                self._pending += received
            line, _, self._pending = self._pending.partition(b"\n")
            message: dict[str, Any] = json.loads(line)
            if "code" in message:
                self._codes[message["pid"]] = message["code"]
            if wanted in message or not wanted:
                return message

    def close(self) -> None:
        """Closes the connection; the process ends with the last one."""
        self._socket.close()
        if self._process is not None:
            self._process.wait()


class Server:
    """Forks a program for each order until no worker is left."""

    def __init__(self, listener: socket.socket):
        self._listener = listener
        self._channels: list[socket.socket] = []
        self._owners: dict[int, socket.socket] = {}
        self._wake, self._wake_end = os.pipe()
        os.set_blocking(self._wake_end, False)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        self._accept()
        while self._channels:
            sources = [self._listener, self._wake, *self._channels]
            ready, _, _ = select.select(sources, [], [])
            for source in ready:
                if source is self._listener:
                    self._accept()
                elif source is self._wake:
                    os.read(self._wake, 4096)
                    self._report_ended()
                else:
                    self._obey(source)

    def _accept(self) -> None:
        from huggingface_hub import constants

        channel, _ = self._listener.accept()
        self._channels.append(channel)
        _tell(channel, {"hub": constants.HF_HUB_CACHE})

    def _obey(self, channel: socket.socket) -> None:
        try:
            header, ends, _, _ = socket.recv_fds(channel, 4, 2)
        except ConnectionResetError:
            header = b""
        if not header:
            self._channels.remove(channel)
            channel.close()
            return
        order = json.loads(_exactly(channel, int.from_bytes(header, "big")))
        pid = os.fork()
        if pid == 0:
            self._forget()
            _run(order, ends)
        for end in ends:
            os.close(end)
        self._owners[pid] = channel
        _tell(channel, {"started": pid})

    def _forget(self) -> None:
        """Leaves nothing of the server in a fork."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._wake)
        os.close(self._wake_end)
        for end in (self._listener, *self._channels):
            end.close()

    def _report_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            channel = self._owners.pop(pid)
            if channel in self._channels:
                _tell(channel, {"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _tell(channel: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # a worker that was killed
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
    import _pytest.config
    import swebench.harness.grading  # noqa: F401 - for the forks

    import swebench_trainer

    for module in pkgutil.walk_packages(swebench_trainer.__path__, "swebench_trainer."):
        # pytest rewrites the assertions of the fixtures, where it is the program.
        if not module.name.endswith(("__main__", "testing.fixtures")):
            importlib.import_module(module.name)
    for plugin in _pytest.config.default_plugins:
        importlib.import_module(f"_pytest.{plugin}")

    # trl imports torch, transformers, peft and datasets only when a name of it is used.
    # peft and bitsandbytes look for GPUs, and CUDA does not survive a fork.
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        from trl import SFTTrainer  # noqa: F401 - for the forks

    with contextlib.suppress(ImportError):
        import openai  # noqa: F401 - for the forks

    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warm_up()
    Server(socket.socket(fileno=int(sys.argv[1]))).serve()
