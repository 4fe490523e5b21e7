"""Docker daemons that share the queue: their connections and job slots.

If a daemon stops responding, the others take over its jobs. While no daemon responds,
jobs wait for a while, because a restarting daemon returns soon.
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
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.scheduler import worker_count

if TYPE_CHECKING:
    from docker import DockerClient

PATIENCE_SECONDS = 60.0
"""How long jobs wait while no daemon responds."""

CONNECT_SECONDS = 120
"""Timeout of requests to a daemon; output may pause for longer."""

PING_SECONDS = 10.0
TUNNEL_SECONDS = 30.0
POLL_SECONDS = 1.0

REMOTE_SOCKET = "/var/run/docker.sock"
"""Default socket of the daemon on an `ssh://` host."""

# ssh never prompts, exits if forwarding fails, and detects a lost connection.
SSH = (
    "ssh",
    "-nNT",
    "-oBatchMode=yes",
    "-oConnectTimeout=15",
    "-oExitOnForwardFailure=yes",
    "-oServerAliveInterval=15",
    "-oStreamLocalBindUnlink=yes",
)

TRY_DOCKER = (
    "Start Docker and check that `docker info` works for the current user. Task repos "
    'that contain their files need no Docker; use the grader "namespace" for them.'
)
TRY_SSH = (
    "Check that `ssh -o BatchMode=yes HOST docker info` works. It needs a key without a "
    "passphrase, and a remote user with access to Docker."
)

ADD_RUNTIME = (
    "Install it, add it to `runtimes` in the daemon's /etc/docker/daemon.json, restart "
    "the daemon, and check that `docker run --runtime {runtime} IMAGE true` works; or "
    "remove `runtime` from [grade]."
)
"""Next step if a daemon does not know a runtime."""


class NoHostError(Exception):
    """No daemon has responded for longer than jobs wait."""


class Tunnel:
    """A local socket that forwards to a daemon on another machine, by ssh(1).

    Args:
        url: `ssh://[user@]host[:port][/path of the remote socket]`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        port = ["-p", str(parts.port)] if parts.port else []
        host = f"{parts.username}@{parts.hostname}" if parts.username else None
        self._folder = tempfile.mkdtemp(prefix="swebench-trainer-")
        self.socket = Path(self._folder, "docker.sock")
        remote_socket = parts.path if parts.path.strip("/") else REMOTE_SOCKET
        self._command = [
            *SSH,
            *port,
            "-L",
            f"{self.socket}:{remote_socket}",
            "--",
            host or parts.hostname or "",
        ]
        self._process: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Start ssh unless it is running.

        Raises:
            OSError: ssh is missing or fails; the message is its own.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        self.socket.unlink(missing_ok=True)
        started: Future[subprocess.Popen[str]] = Future()
        threading.Thread(
            target=self._keep, args=(started,), name="tunnel", daemon=True
        ).start()
        self._process = started.result()
        deadline = time.monotonic() + TUNNEL_SECONDS
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"ssh failed: {self._end() or 'no error message'}")
            time.sleep(0.02)

    def _keep(self, started: Future[subprocess.Popen[str]]) -> None:
        """Start ssh in a thread that lives as long as ssh does.

        The kernel ends ssh when the thread that started it ends, even after kill -9.
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
                start_new_session=True,  # Ctrl-C must not end it before containers are removed
            )
        except OSError as error:
            started.set_exception(error)
        else:
            started.set_result(process)
            process.wait()

    def close(self) -> None:
        """End ssh and remove the socket."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self) -> str:
        """End ssh and return its stderr."""
        if self._process is None:
            return ""
        self._process.kill()
        _, stderr = self._process.communicate()
        self._process = None
        return stderr.strip()


class Host:
    """One daemon and its client.

    Args:
        url: `unix://…`, `tcp://…` or `ssh://…`; empty for `DOCKER_HOST`, or else
            Docker's default socket.
        workers: The recipe's `workers`.
    """

    def __init__(self, url: str, workers: int) -> None:
        self._url = url or os.environ.get("DOCKER_HOST", "")
        self.name = self._url or "Docker"
        self.workers = worker_count(workers)
        """Number of concurrent jobs; 0 in the recipe means a share of the daemon's cores."""
        self.daemon_id = ""
        """The id that the daemon reports, independent of its address."""
        self.architecture = ""
        self.runtimes: frozenset[str] = frozenset()
        """Names of the daemon's container runtimes."""
        self._workers = workers
        self._tunnel = Tunnel(self._url) if self._url.startswith("ssh://") else None
        self._client: DockerClient | None = None
        self._connecting = threading.Lock()

    @property
    def address(self) -> str:
        """`DOCKER_HOST` for programs that talk to the daemon; empty for the default."""
        return f"unix://{self._tunnel.socket}" if self._tunnel else self._url

    @property
    def client(self) -> DockerClient:
        """The client; connects on first use.

        Raises:
            OSError: The daemon is unreachable.
            DockerException: The daemon is unreachable.
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
                self.runtimes = frozenset(facts.get("Runtimes") or ())
                self.workers = worker_count(self._workers, facts["NCPU"])
                self._client = client
            return self._client

    def answers(self) -> bool:
        """Whether the daemon responds now."""
        return not self.connection_error()

    def connection_error(self) -> str:
        """Why the daemon is unreachable; empty if it responds."""
        from docker.errors import DockerException

        try:
            api = self.client.api
            api.get(f"{api.base_url}/_ping", timeout=PING_SECONDS).raise_for_status()
        except (DockerException, OSError) as error:  # the client's errors are OSErrors
            return str(error) or type(error).__name__
        return ""

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
        if self._tunnel is not None:
            self._tunnel.close()


def has_runtime(name: str, runtimes: Collection[str]) -> bool:
    """Whether a daemon with these runtimes can start containers with the named one.

    Containerd's full names, such as `io.containerd.runsc.v1`, need no entry in the
    daemon's configuration.
    """
    return name in runtimes or name.startswith("io.containerd.")


class Hosts:
    """Assigns the job slots of several daemons to the workers.

    Args:
        hosts: The daemons.
        stopped: Set when grading stops.
    """

    def __init__(self, hosts: Sequence[Host], stopped: threading.Event) -> None:
        self._hosts = hosts
        self._stopped = stopped
        self._busy: Counter[Host] = Counter()
        self._lost_at: dict[Host, float] = {}
        self._changed = threading.Condition()
        self._checking = threading.Lock()
        self._checked_at = 0.0

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts)

    def check(self) -> None:
        """Connect to every daemon.

        Raises:
            PrerequisiteError: One of them is unreachable.
        """
        for host in self._hosts:
            if problem := host.connection_error():
                is_remote = host.name.startswith("ssh://")
                raise PrerequisiteError(
                    f"{host.name} is unreachable: {problem}",
                    hint=TRY_SSH if is_remote else TRY_DOCKER,
                )

    def connect(self) -> int:
        """Connect to every reachable daemon, and return the total number of slots."""
        for host in self._hosts:
            if not host.answers():
                self.mark_lost(host)
        return sum(host.workers for host in self._hosts)

    @contextlib.contextmanager
    def slot(self) -> Iterator[Host]:
        """Occupy a slot on a responding daemon, once one is free.

        Raises:
            NoHostError: No daemon has responded for `PATIENCE_SECONDS`, or grading
                stops.
        """
        host = self._take()
        try:
            yield host
        finally:
            with self._changed:
                self._busy[host] -= 1
                self._changed.notify()

    def mark_lost(self, host: Host) -> None:
        """Give a daemon no more jobs until it responds again."""
        with self._changed:
            self._lost_at.setdefault(host, time.monotonic())

    def _take(self) -> Host:
        while not self._stopped.is_set():
            with self._changed:
                if (host := self._free()) is not None:
                    self._busy[host] += 1
                    return host
            self._check_lost()
            with self._changed:
                if self._free() is None:
                    self._raise_if_all_lost()
                    self._changed.wait(POLL_SECONDS)
        raise NoHostError("grading was stopped")

    def _free(self) -> Host | None:
        """The daemon with the largest share of free slots."""
        free = {
            host: self._busy[host] / host.workers
            for host in self._hosts
            if host not in self._lost_at and self._busy[host] < host.workers
        }
        return min(free, key=lambda host: free[host], default=None)

    def _check_lost(self) -> None:
        """Check whether lost daemons are back, in one thread at a time."""
        if not self._checking.acquire(blocking=False):
            return
        try:
            if time.monotonic() - self._checked_at < POLL_SECONDS:
                return
            back = [host for host in list(self._lost_at) if host.answers()]
            self._checked_at = time.monotonic()
        finally:
            self._checking.release()
        with self._changed:
            for host in back:
                del self._lost_at[host]
            self._changed.notify_all()

    def _raise_if_all_lost(self) -> None:
        all_lost = len(self._lost_at) == len(self._hosts)
        if all_lost and (
            time.monotonic() - max(self._lost_at.values()) > PATIENCE_SECONDS
        ):
            names = ", ".join(host.name for host in self._hosts)
            raise NoHostError(f"no response from {names}")
