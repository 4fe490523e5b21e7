"""The `docker` grader: the official eval script in a fresh container per candidate.

The container is as the harness makes it: root, `SYS_ADMIN` and the image's own
environment, with limits on memory, cores and processes added. It is faster because
the container is there before its candidate, because one archive and two execs are all
that the daemon is asked for, and because the container is removed by SIGKILL, in the
background, where the harness waits fifteen seconds for a process that cannot be
stopped politely. The Docker SDK is all it needs.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.apply import APPLY_SECONDS
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.docker.containers import (
    Container,
    ContainerLimits,
    LostError,
    ignore_docker_errors,
    outside,
    remove_containers,
    start_container,
)
from swebench_trainer.grading.docker.hosts import Host, Hosts
from swebench_trainer.grading.docker.images import Images
from swebench_trainer.grading.docker.orphans import GraderClaim, remove_orphans
from swebench_trainer.grading.docker.warm_containers import WarmContainers
from swebench_trainer.grading.run_candidate import run_candidate
from swebench_trainer.grading.sandbox import CommandResult, Evidence, Files, RunCache
from swebench_trainer.grading.scheduler import grade_all, with_deadlines
from swebench_trainer.recipe.models import VOLATILE, GradeTable, Size
from swebench_trainer.types import Instance

SLACK_SECONDS = 600.0
"""What a container may need beside the patch and the tests, on a busy daemon."""

MAX_LOSSES = 5
"""So often a job is begun anew because its container or its daemon was lost."""

SCRIPT = "eval.sh"
"""The eval script among a sandbox's files."""

PULL_AHEAD = 2
"""So many of the next images are pulled while the tests of others run."""


class DockerTable(GradeTable):
    """`[grade]` of the `docker` grader."""

    memory: Size = "8g"
    """Memory of one container; a candidate that needs more is `oom`."""
    cpus: PositiveFloat | None = None
    """Cores that one container may use, such as `1.5`; by default all of them."""
    pids: PositiveInt = 4096
    """Processes and threads of one container."""
    shm: Size = "64m"
    """Size of `/dev/shm` in one container."""
    network: bool = True
    """Whether tests reach the network; many official scripts install packages."""
    image_gb: Annotated[
        PositiveFloat | None, Field(json_schema_extra={VOLATILE: True})
    ] = None
    """While a daemon's images take more disk than this, in GB, images that no job needs any more and that can be pulled again are removed before the next one is used; by default none are."""
    hosts: Annotated[tuple[str, ...], Field(json_schema_extra={VOLATILE: True})] = ()
    """Docker daemons that share the work, such as `["ssh://a", "unix:///x.sock", "tcp://c:2376"]`, `workers` on each; by default `DOCKER_HOST` alone."""


class DockerGrader:
    """Grades in Docker containers; made from the recipe's `[grade]` table.

    Args:
        table: The recipe's table.
        run_cache: Earlier runs, which are not repeated.
    """

    def __init__(self, table: DockerTable, run_cache: RunCache | None = None) -> None:
        self._table = table
        self._run_cache = run_cache
        self._owner = uuid.uuid4().hex
        self._stopped = threading.Event()
        addresses = dict.fromkeys(table.hosts or ("",))
        self._hosts = Hosts(
            [Host(address, table.workers) for address in addresses], self._stopped
        )
        self._engines: dict[Host, DockerSandboxFactory] = {}
        self._making = threading.Lock()
        self._needed: Counter[str] = Counter()
        self._claim: GraderClaim | None = None

    def check(self, instances: Sequence[Instance]) -> None:
        """Asks each daemon whether it is there, and removes what killed graders left.

        Missing images are pulled later.

        Raises:
            PrerequisiteError: A daemon does not answer, or an instance names no image.
        """
        self._hosts.check()
        with ignore_docker_errors():
            remove_orphans({host.daemon_id: host.client.api for host in self._hosts})
        nameless = [i.instance_id for i in instances if not i.image]
        if nameless:
            raise PrerequisiteError(
                f"{len(nameless)} instances name no image, such as {nameless[0]}.",
                hint="Add the column `image`, or leave these instances out.",
            )
        warn_of_emulation({host.name: host.architecture for host in self._hosts})

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """Grades the jobs; see `Grader.grade`."""
        self._stopped.clear()
        self._claim = self._claim or GraderClaim(self._owner)
        self._needed.update(job.instance.image for job in jobs)
        graded = grade_all(
            jobs,
            with_deadlines(self._table, self._grade),
            workers=self._hosts.meet(),
            retries=self._table.retries,
            stop=self._stop,
            ahead=self._expect,
        )
        try:
            with contextlib.closing(graded):
                for job, outcome in graded:
                    self._needed[job.instance.image] -= 1
                    yield job, outcome
        finally:
            for image in self._needed:
                self._needed[image] = 0
            for engine in self._engines.values():
                engine.rest()

    def close(self) -> None:
        """Removes what is left and waits for the removals."""
        self._stopped.set()
        for engine in self._engines.values():
            engine.close()
        gone = [self._remove_all(host) for host in self._engines]
        if self._claim is not None:
            self._claim.release(empty=all(gone))
        for host in self._hosts:
            host.close()
        if self._run_cache is not None:
            self._run_cache.close()

    def _grade(self, job: GradeJob, timeout: float) -> Outcome:
        """Grades a job on whichever daemon has a place, and stays there till the end."""
        losses = 0
        while True:
            with self._hosts.place() as host:
                try:
                    return run_candidate(
                        job,
                        self._engine(host),
                        timeout,
                        run_cache=self._run_cache,
                        same_tree=self._table.dedupe == "tree",
                    )
                except (
                    Exception
                ) as error:  # any may be the loss of a daemon; others are raised
                    losses += 1
                    if losses == MAX_LOSSES or not self._is_loss(host, error):
                        raise

    def _is_loss(self, host: Host, error: Exception) -> bool:
        """Whether a job that ended so is to be begun anew, here or elsewhere."""
        if self._stopped.is_set():
            return False
        if not host.answers():
            self._hosts.lose(host)
        elif not isinstance(error, LostError):
            return False
        if host in self._engines:  # what was ready may be gone as well
            self._engines[host].rest()
        return True

    def _engine(self, host: Host) -> DockerSandboxFactory:
        """The engine of a daemon, made when it is first needed."""
        with self._making:
            if host not in self._engines:
                api = host.client.api
                assert self._claim is not None
                self._claim.add(host.daemon_id)
                self._engines[host] = DockerSandboxFactory(
                    api,
                    self._table,
                    owner=self._owner,
                    workers=host.workers,
                    needed=self._needed,
                    stopped=self._stopped,
                )
            return self._engines[host]

    def _expect(self, jobs: Sequence[GradeJob]) -> None:
        """Takes note of the jobs that come next."""
        images = [job.instance.image for job in jobs]
        for engine in list(self._engines.values()):
            engine.expect(images)

    def _stop(self) -> None:
        self._stopped.set()
        for host in list(self._engines):
            self._remove_all(host)

    def _remove_all(self, host: Host) -> bool:
        """Removes our containers from a daemon; false if it does not answer."""
        with ignore_docker_errors():
            remove_containers(host.client.api, self._owner)
            return True
        return False


class DockerSandboxFactory:
    """Makes the sandboxes of one daemon; see `Engine`.

    Args:
        api: The SDK's `APIClient`.
        table: The recipe's table.
        owner: Label of the containers.
        workers: Jobs at once.
        needed: Image → jobs that are not done.
        stopped: Set when grading stops.
    """

    def __init__(
        self,
        api: Any,
        table: DockerTable,
        *,
        owner: str,
        workers: int,
        needed: Mapping[str, int],
        stopped: threading.Event,
    ) -> None:
        self._api = api
        self._owner = owner
        self._stopped = stopped
        self._limits = ContainerLimits(
            table.memory, table.cpus, table.pids, table.shm, table.network
        )
        self._use = APPLY_SECONDS + table.timeout + SLACK_SECONDS
        self._workers = workers
        self._images = Images(api, needed, table.image_gb, stopped)
        self._ready = WarmContainers(self._start, workers)
        self._next: Sequence[str] = ()

    def environment(self, instance: Instance) -> Mapping[str, Any]:
        """What decides a run beside its files; see `Engine.environment`."""
        image = self._images.get(instance.image)
        return {
            "backend": "docker",
            "image": image.id,
            "platform": image.platform,
            **vars(self._limits),
        }

    @contextlib.contextmanager
    def open(self, job: GradeJob, files: Files) -> Iterator[DockerSandbox]:
        """A container with the files in place; see `Engine.open`."""
        container = self._take(job.instance.image)
        try:
            if self._stopped.is_set():  # too late to be removed with the others
                raise LostError("grading was stopped")
            # Who needs a container predicts that the next ones will; runs that
            # memory answers start none.
            self._ready.want(self._next_images())
            container.put(files)
            yield DockerSandbox(container, job.instance.workdir, files)
        finally:
            self._ready.give_back(container)

    def expect(self, images: Sequence[str]) -> None:
        """Takes note of the images that are needed next, and pulls the first ones."""
        self._next = images[: self._workers]
        for name in list(dict.fromkeys(images))[: PULL_AHEAD + 1]:
            self._images.find(name)

    def rest(self) -> None:
        """Removes the containers that are ready, and gives missing images a chance."""
        self._next = ()
        self._ready.clear()
        self._images.retry()

    def close(self) -> None:
        """Waits for what goes on in the background."""
        self._images.close()
        self._ready.close()

    def _take(self, name: str) -> Container:
        from docker.errors import ImageNotFound

        try:
            return self._ready.take(self._images.get(name).id, self._use)
        except ImageNotFound:
            self._images.forget(name)
            raise

    def _next_images(self) -> list[str]:
        """Ids of the next images, as far as they are here."""
        found = [self._images.find(name) for name in self._next]
        here = [image for image in found if image.done() and not image.exception()]
        return [image.result().id for image in here]

    def _start(self, image_id: str) -> Container:
        # Twice the time of a run: half of it may pass before somebody takes it.
        return start_container(
            self._api,
            image_id,
            self._limits,
            owner=self._owner,
            life=2 * self._use,
        )


class DockerSandbox:
    """A container with a candidate's files; see `Sandbox`."""

    def __init__(self, container: Container, workdir: str, files: Files) -> None:
        self._container = container
        self._workdir = workdir
        self._files = files
        self._stamp: tuple[int, int] | None = None

    def apply(self, log: CappedLog) -> CommandResult:
        """Runs the apply script; see `Sandbox.apply`."""
        return self._run("exec sh /tmp/apply.sh", APPLY_SECONDS, log)

    def test(self, log: CappedLog, timeout: float) -> CommandResult:
        """Runs the eval script; see `Sandbox.test`."""
        self._stamp = self._container.stamp(SCRIPT)
        return self._run("exec /bin/bash /eval.sh", timeout, log)

    def inspect(self) -> Evidence:
        """Kills the container and looks at what is left; see `Sandbox.inspect`."""
        self._container.kill()
        same = self._container.holds(SCRIPT, self._files[SCRIPT])
        # It may have been put back after it had been changed.
        untouched = self._container.stamp(SCRIPT) == self._stamp
        return Evidence(
            outside(self._container.changed(), self._workdir, self._files),
            script_intact=same and (untouched or self._stamp is None),
        )

    def _run(self, command: str, seconds: float, log: CappedLog) -> CommandResult:
        return self._container.run(command, self._workdir, seconds, log)


def warn_of_emulation(architectures: Mapping[str, str]) -> None:
    """Says which daemons are of another kind than the images of SWE-bench."""
    for name, architecture in architectures.items():
        if architecture not in ("x86_64", "amd64"):
            warnings.warn(
                f"{name} runs on {architecture}: images for x86_64 are emulated "
                "there, which is slow.",
                stacklevel=3,
            )
