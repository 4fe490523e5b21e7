"""What every sandbox shares: the files before a run and the verdict after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.grading.apply import (
    APPLY_SECONDS,
    NO_GIT,
    REFUSED,
    patch_bytes,
)
from swebench_trainer.grading.flags import trust_flags
from swebench_trainer.grading.official import (
    APPLY_LOG,
    EVAL_SCRIPT,
    NOOP,
    PATCH,
    REPORT,
    TEST_LOG,
    judge,
    status_of,
    test_spec,
)
from swebench_trainer.types import Candidate, Status

KILLED = 137
"""Exit code of a process that got SIGKILL; only the kernel sends it to a test run."""


@dataclass(frozen=True)
class Execution:
    """How one run in a sandbox went; the log and the report are files.

    Attributes:
        apply_code: Exit code of the apply script; `None` when it did not run.
        timed_out: The deadline ended it.
        oom: The kernel ended it for want of memory.
        fault: What was wrong with the machine; empty when nothing was.
        seconds: Wall time by phase (`start`, `apply`, `test`).
    """

    apply_code: int | None = None
    timed_out: bool = False
    oom: bool = False
    fault: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def grade_in(
    job: GradeJob, timeout: int, run: Callable[[GradeJob, bytes | None], Execution]
) -> Outcome:
    """Grades one job with the sandbox `run`.

    Args:
        job: The candidate; its `log_dir` is made and emptied of an earlier run.
        timeout: Seconds that the tests may take.
        run: Runs the patch (`None`: nothing to apply) and the eval script that lie
            in `log_dir`, and writes the apply log and the test log there.
    """
    if (outcome := without_patch(job.candidate)) is not None:
        return outcome
    patch = None
    if job.candidate.extraction != NOOP:
        patch = patch_bytes(job.candidate.patch)
    clear_logs(job.log_dir)
    if patch is not None:
        (job.log_dir / PATCH).write_bytes(patch)
    script = test_spec(job.instance).eval_script
    (job.log_dir / EVAL_SCRIPT).write_text(script, encoding="utf-8", newline="")
    execution = run(job, patch)
    return conclude(job, timeout, execution)


def clear_logs(log_dir: Path) -> None:
    """Makes the directory, without what an earlier run has left in it."""
    log_dir.mkdir(parents=True, exist_ok=True)
    for name in (PATCH, EVAL_SCRIPT, APPLY_LOG, TEST_LOG, REPORT):
        (log_dir / name).unlink(missing_ok=True)


def without_patch(candidate: Candidate) -> Outcome | None:
    """The outcome of a candidate that has no patch, which needs no sandbox."""
    if candidate.extraction == NOOP:
        return None
    if not candidate.patch.strip():
        return Outcome(Status.NO_PATCH, {}, reason="the patch is empty")
    if patch_bytes(candidate.patch) is None:
        return Outcome(Status.MALFORMED, {}, reason="the patch is not encodable text")
    return None


def conclude(job: GradeJob, timeout: int, execution: Execution) -> Outcome:
    """Turns a finished run into its outcome."""
    seconds = execution.seconds

    def without_report(status: Status, reason: str) -> Outcome:
        return Outcome(status, {}, reason=reason, seconds=seconds)

    if execution.fault:
        return without_report(Status.INFRA_ERROR, execution.fault)
    if job.candidate.extraction != NOOP and execution.apply_code is None:
        if execution.timed_out:
            reason = f"the patch was not applied after {APPLY_SECONDS:.0f} seconds"
            return without_report(Status.TIMEOUT, reason)
        if not execution.oom:
            reason = "the sandbox ended while the patch was applied"
            return without_report(Status.INFRA_ERROR, reason)
    if execution.timed_out:
        with (job.log_dir / TEST_LOG).open("a", encoding="utf-8") as file:
            file.write(f"\n\nTimeout error: {timeout} seconds exceeded.")
        return without_report(Status.TIMEOUT, f"not done after {timeout} seconds")
    if execution.apply_code == REFUSED:
        reason = apply_reason((job.log_dir / APPLY_LOG).read_text(errors="replace"))
        return without_report(Status.NOT_APPLIED, reason)
    if execution.apply_code == NO_GIT:
        return without_report(Status.INFRA_ERROR, "the sandbox has no git")
    if execution.apply_code and not execution.oom:
        reason = f"the apply script ended with {execution.apply_code}"
        return without_report(Status.INFRA_ERROR, reason)

    log = job.log_dir / TEST_LOG
    report = judge(job.instance, job.candidate.patch, log)
    status, reason = status_of(report)
    text = log.read_text(errors="replace")
    if status is not Status.RESOLVED and (execution.oom or _was_killed(text)):
        status, reason = Status.OOM, "the kernel killed the tests (out of memory)"
    flags: tuple[str, ...] = ()
    if status is Status.RESOLVED:
        flags = trust_flags(job.instance, job.candidate.patch, text)
    return Outcome(status, report, flags, reason, seconds)


def _was_killed(log: str) -> bool:
    """Whether the test command itself ended by SIGKILL."""
    from swebench.harness.grading import parse_test_exit_code

    return bool(parse_test_exit_code(log) == KILLED)


def apply_reason(log: str) -> str:
    """The first complaint of the apply commands."""
    complaints = (line for line in log.splitlines() if line.startswith("error:"))
    return next(complaints, "no apply command accepts the patch")
