"""The `namespace` grader: the official eval script in a Linux sandbox, without Docker.

It needs nothing but the kernel's namespaces and overlayfs, and instances that
carry their repository's files. The sandbox has the repository at `/testbed`, the
programs of the host and this interpreter, read-only, and no network; see
`sandbox.py`. It keeps a careless patch in; for a malicious one Docker or, better,
a machine of its own is the right place.
"""

from __future__ import annotations

import functools
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.apply import APPLY_SECONDS, apply_script
from swebench_trainer.grading.execution import Execution, grade_in
from swebench_trainer.grading.log import CappedLog
from swebench_trainer.grading.official import APPLY_LOG, EVAL_SCRIPT, TEST_LOG
from swebench_trainer.grading.pool import grade_all
from swebench_trainer.grading.snapshot import snapshot_repository
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import Instance

SANDBOX = Path(__file__).with_name("sandbox.py")
POLL_SECONDS = 0.25

# The kernel kills unshare when the thread that started it ends, which waits for it
# as long as it lives, and --kill-child passes that on: kill -9 leaves no sandbox.
DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL")
UNSHARE = (
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--net",
    "--ipc",
    "--uts",
)
USE_DOCKER = 'Grade with Docker instead: [grade] use = "docker".'

View = Literal["overlay", "copy"]
"""How the repository appears in the sandbox."""

PROBE = """\
set -e
command -v git bash
command -v patch || { echo 'there is no patch(1)'; exit 1; }
rm -r folder && mkdir folder && [ -z "$(ls -A folder)" ]
echo written > file && [ "$(cat file)" = written ]
echo the sandbox works
"""


class NamespaceGrader:
    """Grades in namespaces of the kernel; made from the recipe's `[grade]` table."""

    def __init__(self, table: GradeTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._repositories: dict[tuple[str, str], Path] = {}

    def check(self, instances: Sequence[Instance]) -> None:
        """Runs a sandbox and reads every snapshot.

        Raises:
            PrerequisiteError: The machine allows no sandbox, or an instance has no
                snapshot.
            DataError: A snapshot is not its instance's `base_commit`.
        """
        repository_view()
        for instance in instances:
            self._repository(instance)

    def grade(self, jobs: Sequence[GradeJob]) -> Iterator[tuple[GradeJob, Outcome]]:
        """Grades the jobs; see `Grader.grade`."""
        stop = threading.Event()
        return grade_all(
            jobs,
            functools.partial(self._grade, stop=stop),
            workers=self._table.workers,
            retries=self._table.retries,
            stop=stop.set,
        )

    def close(self) -> None:
        """Nothing is left: a sandbox ends with everything in it."""

    def _grade(self, job: GradeJob, stop: threading.Event) -> Outcome:
        def run(job: GradeJob, patch: bytes | None) -> Execution:
            return run_sandbox(
                self._repository(job.instance),
                job.instance.workdir,
                (job.log_dir / EVAL_SCRIPT).read_text(encoding="utf-8"),
                patch,
                view=repository_view(),
                timeout=self._table.timeout,
                log_dir=job.log_dir,
                stop=stop,
            )

        return grade_in(job, self._table.timeout, run)

    def _repository(self, instance: Instance) -> Path:
        if not instance.snapshot:
            raise PrerequisiteError(
                f"{instance.instance_id} carries no files of its repository, which "
                "the namespace grader needs.",
                hint=USE_DOCKER,
            )
        key = (instance.snapshot, instance.base_commit)
        with self._lock:  # read once by this grader, however many candidates there are
            if key not in self._repositories:
                self._repositories[key] = snapshot_repository(instance)
            return self._repositories[key]


@functools.cache
def repository_view() -> View:
    """Finds out by trying whether this machine allows sandboxes, and of which kind.

    Raises:
        PrerequisiteError: It allows none.
    """
    for program in (DIE_WITH_US[0], UNSHARE[0]):
        if shutil.which(program) is None:
            raise PrerequisiteError(
                f"There is no {program}(1), which the namespace grader needs.",
                hint=f"On Linux, install util-linux. {USE_DOCKER}",
            )
    views: tuple[View, ...] = ("overlay", "copy")
    for view in views:
        complaint = _probe(view)
        if not complaint:
            return view
    raise PrerequisiteError(
        f"This machine allows no sandbox of namespaces: {complaint}",
        hint="It needs unprivileged user namespaces, bash, git and patch under /usr. "
        + USE_DOCKER,
    )


def _probe(view: View) -> str:
    """Runs a tiny sandbox; returns what went wrong, or nothing."""
    with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as scratch:
        repository = Path(scratch, "repository")
        (repository / "folder").mkdir(parents=True)
        (repository / "folder" / "file").touch()
        (repository / "file").touch()
        logs = Path(scratch)
        execution = run_sandbox(
            repository, "/testbed", PROBE, None, view=view, timeout=60, log_dir=logs
        )
        output = (logs / TEST_LOG).read_text().strip().splitlines() or ["no output"]
        return execution.fault or ("" if "works" in output[-1] else output[-1])


@dataclass
class _Run:
    """One sandbox while it runs."""

    process: subprocess.Popen[bytes]
    status: int
    output: int
    milestones: str = ""
    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    times: dict[str, float] = field(default_factory=dict)

    def read_milestones(self) -> bool:
        """Takes what the sandbox reports; false when it has no more to say."""
        chunk = os.read(self.status, 4096)
        self.milestones += chunk.decode(errors="replace")
        for name in ("ready", "apply"):
            if name in self.milestones:
                self.times.setdefault(name, time.monotonic())
        return bool(chunk)

    def tests_started(self, patched: bool) -> float | None:
        """When the tests started, or `None`."""
        return self.times.get("apply" if patched else "ready")

    def apply_code(self) -> int | None:
        """Exit code of the apply script, when it was run."""
        _, reported, code = self.milestones.partition("apply ")
        return int(code) if reported else None

    def seconds(self) -> dict[str, float]:
        """Wall time by phase."""
        ready = self.times.get("ready", self.ended)
        applied = self.times.get("apply", ready)
        phases = {
            "start": ready - self.started,
            "apply": applied - ready,
            "test": self.ended - applied,
        }
        return {name: round(length, 3) for name, length in phases.items()}


def run_sandbox(
    repository: Path,
    workdir: str,
    eval_script: str,
    patch: bytes | None,
    *,
    view: View,
    timeout: float,
    log_dir: Path,
    stop: threading.Event | None = None,
) -> Execution:
    """Applies a patch and runs a script in a sandbox of its own.

    Args:
        repository: Host directory that the sandbox gets a writable view of.
        workdir: Where it appears.
        eval_script: The script, run by bash.
        patch: What to apply first, by the harness's apply chain; `None` is nothing.
        view: How the repository appears.
        timeout: Seconds that the script may take.
        log_dir: Gets the test log and the apply log.
        stop: Ends the run when set.
    """
    with (
        tempfile.TemporaryDirectory(prefix="swebench-trainer-") as scratch,
        (log_dir / APPLY_LOG).open("wb") as apply_log,
        CappedLog(log_dir / TEST_LOG) as log,
    ):
        Path(scratch, "root").mkdir()
        Path(scratch, "eval.sh").write_text(eval_script, encoding="utf-8", newline="")
        if patch is not None:
            Path(scratch, "patch.diff").write_bytes(patch)
            Path(scratch, "apply.sh").write_text(apply_script())
        status, status_end = os.pipe()
        paths = (scratch, str(repository), workdir)
        process = subprocess.Popen(
            [
                *(*DIE_WITH_US, *UNSHARE, sys.executable, "-I", "-S", str(SANDBOX)),
                *(str(status_end), *paths, view, *_interpreter_dirs()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=apply_log,
            pass_fds=(status_end,),
            start_new_session=True,
        )
        os.close(status_end)
        assert process.stdout is not None
        with process.stdout:
            run = _Run(process, status, process.stdout.fileno())
            try:
                timed_out = _follow(run, log, patch is not None, timeout, stop)
            finally:
                _kill(process)
                os.close(status)
                run.ended = time.monotonic()
    return _execution(run, timed_out, log_dir / APPLY_LOG)


def _follow(
    run: _Run,
    log: CappedLog,
    patched: bool,
    timeout: float,
    stop: threading.Event | None,
) -> bool:
    """Copies the output to the log until the end; true when the deadline ended it."""
    with selectors.DefaultSelector() as selector:
        selector.register(run.status, selectors.EVENT_READ)
        selector.register(run.output, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(POLL_SECONDS):
                if key.fd == run.status:
                    more = run.read_milestones()
                else:
                    chunk = os.read(run.output, 1 << 16)
                    log.write(chunk)
                    more = bool(chunk)
                if not more:
                    selector.unregister(key.fd)
            tests = run.tests_started(patched)
            deadline = tests + timeout if tests else run.started + APPLY_SECONDS
            if time.monotonic() > deadline:
                return True
            if stop is not None and stop.is_set():
                return False
    run.process.wait()
    return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a sandbox: its pid 1 takes every process in it along."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _execution(run: _Run, timed_out: bool, apply_log: Path) -> Execution:
    fault = ""
    if "ready" not in run.times:
        lines = apply_log.read_text(errors="replace").strip().splitlines()
        fault = (
            f"the sandbox did not start: {lines[-1] if lines else 'no reason given'}"
        )
    # unshare(1) ends as its child did, and nobody but the kernel kills that one.
    oom = not timed_out and run.process.returncode == -signal.SIGKILL
    return Execution(run.apply_code(), timed_out, oom, fault, run.seconds())


def _interpreter_dirs() -> list[str]:
    """Where this interpreter and its packages lie, unless `/usr` shows them anyway."""
    prefixes = {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)}
    return sorted(p for p in prefixes if not f"{p}/".startswith("/usr/"))
