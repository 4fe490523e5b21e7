"""The `docker` grader: the official eval script in a fresh container per candidate.

The container matches the harness's: root and the image's own environment, plus limits on
memory, cores and processes. Unlike the harness's, it has no `SYS_ADMIN` unless the recipe
asks for it. It is faster for three reasons: containers
start before they are needed, a candidate takes one archive upload and two execs, and
containers are removed by SIGKILL in the background, where the harness waits fifteen
seconds for a process that ignores SIGTERM. It depends only on the Docker SDK.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.apply import APPLY_SECONDS
from swebench_trainer.grading.docker import containers, keep_alive
from swebench_trainer.grading.docker.builds import Builder, BuildOrder, BuildPolicy
from swebench_trainer.grading.docker.hosts import ADD_RUNTIME, Host, Hosts, has_runtime
from swebench_trainer.grading.docker.images import Images, UnbuildableError
from swebench_trainer.grading.docker.orphans import GraderClaim, remove_orphans
from swebench_trainer.grading.docker.warm_containers import WarmContainers
from swebench_trainer.grading.run_candidate import CandidateRun
from swebench_trainer.grading.sandbox import Files, NullCache, RunCache
from swebench_trainer.grading.scheduler import grade_all
from swebench_trainer.recipe.models import VOLATILE, GradeTable, Size
from swebench_trainer.types import Instance, Status

SLACK_SECONDS = 600.0
"""Container lifetime beyond the timeouts of patch and tests, for a busy daemon."""

MAX_LOSSES = 5
"""Attempts at a job whose container or daemon was lost."""

PULL_AHEAD = 2
"""Number of upcoming images to pull while other candidates run."""


class DockerTable(GradeTable):
    """`[grade]` of the `docker` grader."""

    memory: Size = "8g"
    """Memory limit of a container; a candidate that exceeds it is `oom`."""
    cpus: PositiveFloat | None = None
    """Core limit of a container, such as `1.5`; by default, none."""
    pids: PositiveInt = 4096
    """Maximum number of processes and threads in a container."""
    shm: Size = "64m"
    """Size of `/dev/shm` in a container."""
    network: bool = True
    """Whether tests have network access, which many official scripts need to install packages."""
    capabilities: Literal["default", "harness"] = "default"
    """Privileges of root in a container: Docker's own, with `no-new-privileges` (`default`), or the stock harness's, with `SYS_ADMIN` (`harness`), which a patch can use to attack the host."""
    runtime: str = ""
    """Container runtime that the daemon knows, such as `runsc` for gVisor; by default, the daemon's own default."""
    build: Annotated[BuildPolicy, Field(json_schema_extra={VOLATILE: True})] = "missing"
    """Which images to build from a task's Dockerfile: those that neither the daemon nor a registry has, or that an older Dockerfile built (`missing`); none (`never`); or all that their own Dockerfile has not built yet (`always`)."""
    image_gb: Annotated[
        PositiveFloat | None, Field(json_schema_extra={VOLATILE: True})
    ] = None
    """Disk space for a daemon's images, in GB. Above it, images that no remaining job needs and that can be pulled or built again are removed. By default, none are removed."""
    hosts: Annotated[tuple[str, ...], Field(json_schema_extra={VOLATILE: True})] = ()
    """Docker daemons to share the work, such as `["ssh://a", "unix:///x.sock", "tcp://c:2376"]`, with `workers` jobs on each; by default, only `DOCKER_HOST`."""


class DockerGrader:
    """Grades in Docker containers.

    Args:
        table: The recipe's table.
        run_cache: Earlier runs, which are not repeated.
    """

    def __init__(self, table: DockerTable, run_cache: RunCache | None = None) -> None:
        self._table = table
        self._run_cache = run_cache or NullCache()
        self._owner = uuid.uuid4().hex
        self._stopped = threading.Event()
        addresses = dict.fromkeys(table.hosts or ("",))
        self._hosts = Hosts(
            [Host(address, table.workers) for address in addresses], self._stopped
        )
        self._factories: dict[Host, DockerSandboxFactory] = {}
        self._making = threading.Lock()
        self._needed: Counter[str] = Counter()
        self._orders: dict[str, BuildOrder] = {}
        self._claim: GraderClaim | None = None

    def check(self, instances: Sequence[Instance]) -> None:
        """Connect to each daemon, and remove containers of killed graders.

        Missing images are pulled later.

        Raises:
            PrerequisiteError: A daemon is unreachable or lacks the runtime, or an
                instance has no image.
        """
        self._hosts.check()
        for host in self._hosts:
            check_host(host, self._table.runtime)
        with containers.ignore_docker_errors():
            remove_orphans({host.daemon_id: host.client.api for host in self._hosts})
        nameless = [i.instance_id for i in instances if not i.image]
        if nameless:
            raise PrerequisiteError(
                f"{len(nameless)} instances have no image, for example {nameless[0]}.",
                hint="Add an `image` column, or exclude these instances.",
            )
        warn_of_emulation({host.name: host.architecture for host in self._hosts})

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """Grade the jobs; see `Grader.grade`."""
        self._stopped.clear()
        self._claim = self._claim or GraderClaim(self._owner)
        self._needed.update(job.instance.image for job in jobs)
        for job in jobs:
            order = BuildOrder(job.instance, job.log_dir)
            self._orders.setdefault(job.instance.image, order)
        graded = grade_all(
            jobs,
            self._table,
            self._grade,
            workers=self._hosts.connect(),
            stop=self._stop,
            ahead=self._prefetch,
        )
        try:
            with contextlib.closing(graded):
                for job, outcome in graded:
                    self._needed[job.instance.image] -= 1
                    yield job, outcome
        finally:
            for image in self._needed:
                self._needed[image] = 0
            for factory in self._factories.values():
                factory.reset()

    def close(self) -> None:
        """Remove all containers and wait for the removals."""
        self._stopped.set()
        for factory in self._factories.values():
            factory.close()
        gone = [self._remove_all(host) for host in self._factories]
        if self._claim is not None:
            self._claim.release(empty=all(gone))
        for host in self._hosts:
            host.close()
        self._run_cache.close()

    def _grade(self, job: GradeJob, timeout: float) -> Outcome:
        """Grade a job on the first daemon with a free slot; retry if the daemon is lost."""
        losses, same_tree = 0, self._table.dedupe == "tree"
        while True:
            with self._hosts.slot() as host:
                try:
                    factory = self._factory(host)
                    run = CandidateRun(
                        job, factory, timeout, self._run_cache, same_tree
                    )
                    return run.outcome()
                except UnbuildableError as error:
                    return unbuildable(error)
                except Exception as error:  # any may be the loss of a daemon
                    losses += 1
                    if losses == MAX_LOSSES or not self._is_loss(host, error):
                        raise

    def _is_loss(self, host: Host, error: Exception) -> bool:
        """Whether the error means that the job should run again, here or elsewhere."""
        if self._stopped.is_set():
            return False
        if not host.answers():
            self._hosts.mark_lost(host)
        elif not isinstance(error, containers.LostError):
            return False
        if host in self._factories:  # its warm containers may be gone as well
            self._factories[host].reset()
        return True

    def _factory(self, host: Host) -> DockerSandboxFactory:
        """The sandbox factory of a daemon, created on first use."""
        with self._making:
            if host not in self._factories:
                assert self._claim is not None
                factory = DockerSandboxFactory(
                    host,
                    self._table,
                    owner=self._owner,
                    needed=self._needed,
                    orders=self._orders,
                    stopped=self._stopped,
                )
                self._claim.add(host.daemon_id)
                self._factories[host] = factory
            return self._factories[host]

    def _prefetch(self, jobs: Sequence[GradeJob]) -> None:
        """Prepare for the next jobs."""
        images = [job.instance.image for job in jobs]
        for factory in list(self._factories.values()):
            factory.prefetch(images)

    def _stop(self) -> None:
        self._stopped.set()
        for host in list(self._factories):
            self._remove_all(host)

    def _remove_all(self, host: Host) -> bool:
        """Remove our containers from a daemon; false if it is unreachable."""
        with containers.ignore_docker_errors():
            containers.remove_containers(host.client.api, self._owner)
            return True
        return False


class DockerSandboxFactory:
    """Creates the sandboxes of one daemon; see `SandboxFactory`.

    Args:
        host: The daemon.
        table: The `[grade]` table.
        owner: Label of the containers.
        needed: Number of unfinished jobs by image.
        orders: Images that may have to be built, by name.
        stopped: Set when grading stops.
    """

    def __init__(
        self,
        host: Host,
        table: DockerTable,
        *,
        owner: str,
        needed: Mapping[str, int],
        orders: Mapping[str, BuildOrder],
        stopped: threading.Event,
    ) -> None:
        self._api = host.client.api
        self._owner = owner
        self._stopped = stopped
        self._limits = containers.ContainerLimits(
            memory=table.memory,
            cpus=table.cpus,
            pids=table.pids,
            shm=table.shm,
            network=table.network,
            capabilities=table.capabilities,
            runtime=table.runtime,
        )
        self._architecture = host.architecture
        self._use = APPLY_SECONDS + table.timeout + SLACK_SECONDS
        self._workers = host.workers
        builder = Builder(
            self._api,
            host.address,
            policy=table.build,
            orders=orders,
            stopped=stopped,
        )
        self._images = Images(self._api, needed, table.image_gb, stopped, builder)
        self._warm = WarmContainers(self._start, host.workers)
        self._next: Sequence[str] = ()

    def environment(self, instance: Instance) -> Mapping[str, Any]:
        """See `SandboxFactory.environment`."""
        image = self._images.get(instance.image)
        return {
            "backend": "docker",
            "image": image.id,
            "platform": image.platform,
            **vars(self._limits),
        }

    @contextlib.contextmanager
    def open(self, job: GradeJob, files: Files) -> Iterator[containers.DockerSandbox]:
        """See `SandboxFactory.open`."""
        container = self._take(job.instance.image)
        try:
            if self._stopped.is_set():  # started after the others were removed
                raise containers.LostError("grading was stopped")
            # A job that needs a container predicts that the next ones do too. Jobs
            # answered by the cache never get here.
            self._warm.keep(self._next_images())
            container.put(files)
            yield containers.DockerSandbox(container, job.instance.workdir, files)
        finally:
            self._warm.discard(container)

    def prefetch(self, images: Sequence[str]) -> None:
        """Record the images that are needed next, and pull the first ones."""
        self._next = images[: self._workers]
        for name in list(dict.fromkeys(images))[: PULL_AHEAD + 1]:
            self._images.find(name)

    def reset(self) -> None:
        """Remove the warm containers, and allow failed images to be pulled again."""
        self._next = ()
        self._warm.clear()
        self._images.retry()

    def close(self) -> None:
        """Wait for background work."""
        self._images.close()
        self._warm.close()

    def _take(self, name: str) -> containers.Container:
        from docker.errors import ImageNotFound

        try:
            return self._warm.take(self._images.get(name).id, self._use)
        except ImageNotFound:
            self._images.forget(name)
            raise

    def _next_images(self) -> list[str]:
        """Ids of the next images that are already on the daemon."""
        found = [self._images.find(name) for name in self._next]
        here = [image for image in found if image.done() and not image.exception()]
        return [image.result().id for image in here]

    def _start(self, image_id: str) -> containers.Container:
        # Twice the time of a run: half may pass before a worker takes the container.
        life = 2 * self._use
        return containers.start_container(
            self._api,
            image_id,
            self._limits,
            owner=self._owner,
            life=life,
            architecture=self._architecture,
        )


def unbuildable(error: UnbuildableError) -> Outcome:
    """The outcome of a candidate whose image cannot be built.

    The reason in the report masks it without stopping the stage: another run would end
    the same way.
    """
    report: dict[str, object] = {"infra_failure_reason": "image_build"}
    return Outcome(Status.INFRA_ERROR, report, reason=str(error))


def check_host(host: Host, runtime: str) -> None:
    """Check that a daemon can start containers with this runtime.

    Raises:
        PrerequisiteError: It does not know the runtime, or runs on an architecture for
            which there is no first process.
    """
    if host.architecture not in keep_alive.ARCHITECTURES:
        known = ", ".join(sorted(keep_alive.ARCHITECTURES))
        raise PrerequisiteError(
            f"{host.name} runs on {host.architecture}; grading in Docker needs one of "
            f"{known}.",
            hint="Use a daemon on another machine: [grade] hosts.",
        )
    if runtime and not has_runtime(runtime, host.runtimes):
        raise PrerequisiteError(
            f"{host.name} has no runtime {runtime!r}, only "
            f"{', '.join(sorted(host.runtimes))}.",
            hint=ADD_RUNTIME.format(runtime=runtime),
        )


def warn_of_emulation(architectures: Mapping[str, str]) -> None:
    """Warn about daemons with another architecture than SWE-bench images."""
    for name, architecture in architectures.items():
        if architecture not in ("x86_64", "amd64"):
            warnings.warn(
                f"{name} runs on {architecture}, so x86_64 images are emulated, "
                "which is slow.",
                stacklevel=3,
            )
