"""The Docker daemons that share the queue: the way to each, and which of them answer.

A daemon that stops answering loses its jobs to the others. While none answers, the
jobs wait for a while, because a daemon that restarts is soon back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.scheduler import worker_count

if TYPE_CHECKING:
    from docker import DockerClient

PATIENCE_SECONDS = 60.0
"""How long jobs wait for a daemon when none answers."""

CONNECT_SECONDS = 120
"""Longest wait for an answer of a daemon; output may pause for longer."""

PING_SECONDS = 10.0
TUNNEL_SECONDS = 30.0
POLL_SECONDS = 1.0

REMOTE_SOCKET = "/var/run/docker.sock"
"""Where the daemon of an `ssh://` host listens, unless the address says otherwise."""

# ssh asks nothing, ends when the way is blocked, and notices when the far end is gone.
SSH = (
    "ssh",
    "-nNT",
    *("-o", "BatchMode=yes"),
    *("-o", "ConnectTimeout=15"),
    *("-o", "ExitOnForwardFailure=yes"),
    *("-o", "ServerAliveInterval=15"),
    *("-o", "StreamLocalBindUnlink=yes"),
)

TRY_DOCKER = (
    "Start it and try `docker info`, as the user who runs this. Task repos that carry "
    'their files need no Docker: [grade] use = "namespace".'
)
TRY_SSH = (
    "Try `ssh -o BatchMode=yes HOST docker info`: it must work with a key that needs no "
    "password, and the user must be allowed to use Docker there."
)


class NoHostError(Exception):
    """No daemon has answered for longer than jobs wait."""


class Tunnel:
    """A socket on this machine that leads to a daemon's on another, by ssh(1).

    Args:
        url: `ssh://[user@]host[:port][/path of the far socket]`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        port = ["-p", str(parts.port)] if parts.port else []
        host = f"{parts.username}@{parts.hostname}" if parts.username else None
        self._folder = tempfile.mkdtemp(prefix="swebench-trainer-")
        self.socket = Path(self._folder, "docker.sock")
        far_socket = parts.path if parts.path.strip("/") else REMOTE_SOCKET
        self._command = [
            *(*SSH, *port, "-L", f"{self.socket}:{far_socket}"),
            *("--", host or parts.hostname or ""),
        ]
        self._process: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Starts ssh, unless it runs.

        Raises:
            OSError: There is no ssh, or it gives up; the message is its own.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        self.socket.unlink(missing_ok=True)
        started: list[subprocess.Popen[str] | OSError] = []
        ready = threading.Event()
        threading.Thread(
            target=self._keep, args=(started, ready), name="tunnel", daemon=True
        ).start()
        ready.wait()
        if isinstance(started[0], OSError):
            raise started[0]
        self._process = started[0]
        deadline = time.monotonic() + TUNNEL_SECONDS
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"ssh failed: {self._end() or 'no reason given'}")
            time.sleep(0.02)

    def _keep(
        self,
        started: list[subprocess.Popen[str] | OSError],
        ready: threading.Event,
    ) -> None:
        """Starts ssh in a thread that lives as long as it, for the kernel's sake.

        The kernel ends ssh when the thread that started it ends: kill -9 leaves none.
        """
        setpriv = shutil.which("setpriv")
        die_with_us = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        try:
            process = subprocess.Popen(
                [*die_with_us, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C must leave time to remove containers
            )
        except OSError as error:
            started.append(error)
            ready.set()
        else:
            started.append(process)
            ready.set()
            process.wait()

    def close(self) -> None:
        """Ends ssh and removes the socket."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> str:
        """Ends ssh; returns what it complained of."""
        if self._process is None:
            return ""
        self._process.kill()
        _, stderr = self._process.communicate()
        self._process = None
        return stderr.strip()


class Host:
    """One daemon and the client that talks to it.

    Args:
        url: `unix://…`, `tcp://…` or `ssh://…`; empty means `DOCKER_HOST`, or the
            socket where Docker usually listens.
        workers: The recipe's `workers`.
    """

    def __init__(self, url: str, workers: int) -> None:
        self._url = url or os.environ.get("DOCKER_HOST", "")
        self.name = self._url or "Docker"
        self.workers = worker_count(workers)
        """Jobs at once; 0 in the recipe counts the daemon's own cores."""
        self.daemon_id = ""
        """The daemon's own name for itself, whatever its address."""
        self.architecture = ""
        self._workers = workers
        self._tunnel = Tunnel(self._url) if self._url.startswith("ssh://") else None
        self._client: DockerClient | None = None
        self._connecting = threading.Lock()

    @property
    def client(self) -> DockerClient:
        """The client; it is made, and the daemon asked who it is, on first use.

        Raises:
            OSError: The daemon does not answer.
            DockerException: Likewise.
        """
        import docker

        with self._connecting:
            if self._tunnel:
                self._tunnel.open()
            if self._client is None:
                url = f"unix://{self._tunnel.socket}" if self._tunnel else self._url
                settings = dict(os.environ) | ({"DOCKER_HOST": url} if url else {})
                client = docker.from_env(
                    timeout=CONNECT_SECONDS, max_pool_size=64, environment=settings
                )
                facts = client.info()
                self.daemon_id = facts["ID"]
                self.architecture = facts["Architecture"]
                self.workers = worker_count(self._workers, facts["NCPU"])
                self._client = client
            return self._client

    def answers(self) -> bool:
        """Whether the daemon answers now."""
        return not self.connection_error()

    def connection_error(self) -> str:
        """Why the daemon does not answer; empty if it does."""
        from docker.errors import DockerException

        try:
            api = self.client.api
            api.get(f"{api.base_url}/_ping", timeout=PING_SECONDS).raise_for_status()
        except (DockerException, OSError) as error:  # the client's errors are OSErrors
            return str(error) or type(error).__name__
        return ""

    def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            self._client.close()
        if self._tunnel is not None:
            self._tunnel.close()


class Hosts:
    """Shares out the places of several daemons among the workers.

    Args:
        hosts: The daemons.
        stopped: Set when nobody wants a place any more.
    """

    def __init__(self, hosts: Sequence[Host], stopped: threading.Event) -> None:
        self._hosts = hosts
        self._stopped = stopped
        self._busy: Counter[Host] = Counter()
        self._lost_at: dict[Host, float] = {}
        self._changed = threading.Condition()
        self._looking = threading.Lock()
        self._looked_at = 0.0

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts)

    def check(self) -> None:
        """Asks every daemon whether it is there.

        Raises:
            PrerequisiteError: One of them does not answer.
        """
        for host in self._hosts:
            if problem := host.connection_error():
                far = host.name.startswith("ssh://")
                raise PrerequisiteError(
                    f"{host.name} does not answer: {problem}",
                    hint=TRY_SSH if far else TRY_DOCKER,
                )

    def meet(self) -> int:
        """Asks each daemon who it is, and returns the places that all have together."""
        for host in self._hosts:
            if not host.answers():
                self.lose(host)
        return sum(host.workers for host in self._hosts)

    @contextlib.contextmanager
    def place(self) -> Iterator[Host]:
        """A place on a daemon that answers, when one is free.

        Raises:
            NoHostError: None has answered for `PATIENCE_SECONDS`, or grading stops.
        """
        host = self._take()
        try:
            yield host
        finally:
            with self._changed:
                self._busy[host] -= 1
                self._changed.notify()

    def lose(self, host: Host) -> None:
        """Gives a daemon no more jobs until it answers again."""
        with self._changed:
            self._lost_at.setdefault(host, time.monotonic())

    def _take(self) -> Host:
        while not self._stopped.is_set():
            with self._changed:
                if (host := self._free()) is not None:
                    self._busy[host] += 1
                    return host
            self._look_for_lost()
            with self._changed:
                if self._free() is None:
                    self._lose_patience()
                    self._changed.wait(POLL_SECONDS)
        raise NoHostError("grading was stopped")

    def _free(self) -> Host | None:
        """The daemon with most places free, as a share of all of its places."""
        free = {
            host: self._busy[host] / host.workers
            for host in self._hosts
            if host not in self._lost_at and self._busy[host] < host.workers
        }
        return min(free, key=lambda host: free[host], default=None)

    def _look_for_lost(self) -> None:
        """Asks the lost daemons whether they are back, one thread now and then."""
        if not self._looking.acquire(blocking=False):
            return
        try:
            if time.monotonic() - self._looked_at < POLL_SECONDS:
                return
            back = [host for host in list(self._lost_at) if host.answers()]
            self._looked_at = time.monotonic()
        finally:
            self._looking.release()
        with self._changed:
            for host in back:
                del self._lost_at[host]
            self._changed.notify_all()

    def _lose_patience(self) -> None:
        all_lost = len(self._lost_at) == len(self._hosts)
        if all_lost and (
            time.monotonic() - max(self._lost_at.values()) > PATIENCE_SECONDS
        ):
            names = ", ".join(host.name for host in self._hosts)
            raise NoHostError(f"no answer from {names}")
