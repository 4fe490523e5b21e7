"""The `docker` grader: a fresh container per candidate, killed when it is done.

It makes the same container as the harness and runs the same commands in it. It is
faster because it sends one archive and two execs, and because it removes the
container by SIGKILL, in the background, where the harness waits fifteen seconds
for a process that cannot be stopped politely. The Docker SDK is all it needs.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import math
import tarfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from pydantic import Field

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.apply import APPLY_SECONDS, apply_script
from swebench_trainer.grading.execution import Execution, grade_in
from swebench_trainer.grading.log import CappedLog
from swebench_trainer.grading.official import APPLY_LOG, EVAL_SCRIPT, TEST_LOG
from swebench_trainer.grading.pool import grade_all, worker_count
from swebench_trainer.grading.snapshot import cache_dir
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import Instance

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

LABEL = "swebench-trainer"
"""Label of every container; its value names the grader that made it."""

PIDS = 4096
CONNECT_SECONDS = 120
"""Longest wait for an answer of the daemon; output may pause for longer."""
SLACK_SECONDS = 600
"""What a container may need beside the patch and the tests, on a busy daemon."""


class DockerTable(GradeTable):
    """`[grade]` of the `docker` grader."""

    memory: Annotated[str, Field(pattern=r"^[0-9]+[bkmg]$")] = "8g"
    """Memory of one container; a candidate that needs more is `oom`."""
    network: bool = True
    """Whether tests reach the network; many official scripts install packages."""


class DockerGrader:
    """Grades in Docker containers; made from the recipe's `[grade]` table."""

    def __init__(self, table: DockerTable) -> None:
        self._table = table
        self._run_id = uuid.uuid4().hex
        self._pull_lock = threading.Lock()
        self._removals = ThreadPoolExecutor(2, "remove")
        self._claim: TextIO | None = None

    @functools.cached_property
    def _client(self) -> DockerClient:
        import docker

        return docker.from_env(
            timeout=CONNECT_SECONDS,
            max_pool_size=4 * worker_count(self._table.workers),
        )

    def check(self, instances: Sequence[Instance]) -> None:
        """Asks the daemon whether it is there, and removes what killed graders left.

        Missing images are pulled later.

        Raises:
            PrerequisiteError: The daemon does not answer, or an instance names no
                image.
        """
        from docker.errors import DockerException

        try:
            self._client.ping()
            self._remove_left()
        except (DockerException, OSError) as error:
            raise PrerequisiteError(
                f"Docker does not answer: {error}",
                hint="Start it and try `docker info`, as the user who runs this. Task "
                'repos that carry their files need none: [grade] use = "namespace".',
            ) from error
        nameless = [i.instance_id for i in instances if not i.image]
        if nameless:
            raise PrerequisiteError(
                f"{len(nameless)} instances name no image, such as {nameless[0]}.",
                hint="Add the column `image`, or leave these instances out.",
            )

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """Grades the jobs; see `Grader.grade`."""
        if self._claim is None:
            self._claim = _hold_claim(self._run_id)
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            with _lenient():
                self._remove_all(self._run_id)

        run = functools.partial(self._run, stopped)
        return grade_all(
            jobs,
            lambda job: grade_in(job, self._table.timeout, run),
            workers=self._table.workers,
            retries=self._table.retries,
            stop=stop,
        )

    def close(self) -> None:
        """Waits for the removals and removes what is left."""
        self._removals.shutdown()
        if "_client" in self.__dict__:
            with _lenient():
                self._remove_all(self._run_id)
            self._client.close()
        if self._claim is not None:
            self._claim.close()

    def _run(
        self, stopped: threading.Event, job: GradeJob, patch: bytes | None
    ) -> Execution:
        """Runs one candidate in a container of its own."""
        begin = time.monotonic()
        container = self._start(job.instance)
        try:
            if stopped.is_set():  # it came too late to be removed with the others
                return Execution(fault="grading was stopped")
            files = {"eval.sh": (job.log_dir / EVAL_SCRIPT).read_bytes()}
            if patch is not None:
                files["tmp/patch.diff"] = patch
                files["tmp/apply.sh"] = apply_script().encode()
            container.put_archive("/", _archive(files))
            seconds = {"start": _since(begin)}
            if patch is not None:
                begin = time.monotonic()
                with CappedLog(job.log_dir / APPLY_LOG) as log:
                    command = "sh /tmp/apply.sh; code=$?; rm /tmp/apply.sh; exit $code"
                    code, timed_out = self._exec(
                        container, ["sh", "-c", command], job, APPLY_SECONDS, log
                    )
                seconds["apply"] = _since(begin)
                if code != 0:
                    (job.log_dir / TEST_LOG).touch()
                    oom = not timed_out and _out_of_memory(container)
                    return Execution(code, timed_out, oom, seconds=seconds)
            begin = time.monotonic()
            with CappedLog(job.log_dir / TEST_LOG) as log:
                # One pipe for both streams, so that lines stay in order.
                command = "exec /bin/bash /eval.sh 2>&1"
                code, timed_out = self._exec(
                    container, ["sh", "-c", command], job, self._table.timeout, log
                )
            seconds["test"] = _since(begin)
            oom = not timed_out and _out_of_memory(container)
            fault = "the container vanished" if code is None and not timed_out else ""
            applied = None if patch is None else 0
            return Execution(applied, timed_out, oom, "" if oom else fault, seconds)
        finally:
            self._removals.submit(_remove, container)

    def _start(self, instance: Instance) -> Container:
        """A started container like the harness's, whatever the image's entrypoint."""
        from docker.errors import ImageNotFound

        # Should this process be killed, the container ends by itself. A test that
        # kills every `sleep` it sees takes a second of its life, no more.
        life = math.ceil(APPLY_SECONDS + self._table.timeout + SLACK_SECONDS)

        def create() -> Container:
            return self._client.containers.create(
                instance.image,
                entrypoint=["/bin/sh", "-c"],
                command=[f"n={life}; while [ $((n -= 1)) -ge 0 ]; do sleep 1; done"],
                user="root",
                cap_add=["SYS_ADMIN"],
                labels={LABEL: self._run_id},
                mem_limit=self._table.memory,
                memswap_limit=self._table.memory,
                pids_limit=PIDS,
                network_disabled=not self._table.network,
            )

        try:
            container = create()
        except ImageNotFound:
            with self._pull_lock:  # one at a time, because registries count pulls
                self._client.images.pull(instance.image)
            container = create()
        try:
            container.start()
        except Exception:  # whatever it is, the created container must go
            self._removals.submit(_remove, container)
            raise
        return container

    def _exec(
        self,
        container: Container,
        command: list[str],
        job: GradeJob,
        seconds: float,
        log: CappedLog,
    ) -> tuple[int | None, bool]:
        """Runs a command until its end or the deadline, which kills the container.

        Returns:
            The exit code, `None` when it was killed; and whether the deadline did it.
        """
        api = self._client.api
        created = api.exec_create(
            container.id, command, user="root", workdir=job.instance.workdir
        )
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(container)

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            with _output(api, created["Id"]) as chunks:
                for chunk in chunks:
                    log.write(chunk)
        finally:
            timer.cancel()
        if expired.is_set():
            return None, True
        return api.exec_inspect(created["Id"])["ExitCode"], False

    def _remove_left(self) -> None:
        """Removes the containers of graders that live no more."""
        held_or_gone = contextlib.suppress(BlockingIOError, FileNotFoundError)
        for path in _claims().glob("*"):
            with held_or_gone, path.open() as claim:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove_all(path.name)
                path.unlink()

    def _remove_all(self, run_id: str) -> None:
        """Removes every container of one grader, the running ones too."""
        containers = self._client.containers.list(
            all=True,
            filters={"label": f"{LABEL}={run_id}"},
            ignore_removed=True,
        )
        for container in containers:
            _remove(container)


def _claims() -> Path:
    """Holds a file for each grader of this user, locked as long as the grader lives.

    A lock outlasts neither kill -9 nor a reboot, and a grader of another machine or
    user, which may share the daemon, has no file here and is left alone.
    """
    return cache_dir().with_name("docker")


def _hold_claim(run_id: str) -> TextIO:
    """Makes the file that says that this grader lives."""
    path = _claims() / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = path.open("w")
    fcntl.flock(claim, fcntl.LOCK_EX)
    return claim


@contextlib.contextmanager
def _output(api: Any, exec_id: str) -> Iterator[Iterator[bytes]]:
    """Starts an exec and gives its output as it comes.

    `exec_start(stream=True)` would never close its connection.
    """
    from docker.utils.socket import frames_iter

    stream = api.exec_start(exec_id, socket=True)
    try:
        frames = frames_iter(stream, tty=False)  # type: ignore[no-untyped-call]  # the SDK has no types here
        yield (chunk for _, chunk in frames)
    finally:
        stream._response.close()


def _archive(files: dict[str, bytes]) -> bytes:
    """A tar archive of files that belong to root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mtime = int(time.time())
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _kill(container: Container) -> None:
    """Ends the container; that it has ended already is fine."""
    with _lenient():
        container.kill()


def _remove(container: Container) -> None:
    """Removes the container by SIGKILL; that it has gone already is fine."""
    with _lenient():
        container.remove(force=True, v=True)


def _lenient() -> contextlib.suppress:
    """Lets a clean-up pass whose container has gone, or whose daemon has."""
    from docker.errors import DockerException

    # The client's own connection errors are OSErrors.
    return contextlib.suppress(DockerException, OSError)


def _out_of_memory(container: Container) -> bool:
    """Whether the kernel killed something in the container for want of memory."""
    container.reload()
    state: dict[str, Any] = container.attrs["State"]
    return bool(state["OOMKilled"])


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 3)
