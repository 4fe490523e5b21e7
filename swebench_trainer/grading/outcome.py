"""The outcome of a candidate, derived from the files of its run."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.grading import official
from swebench_trainer.grading.apply import (
    APPLY_SECONDS,
    NO_GIT,
    REFUSED,
    patch_bytes,
)
from swebench_trainer.grading.sandbox import KILLED, Execution
from swebench_trainer.grading.trust.flags import trust_flags
from swebench_trainer.types import Candidate, ExtractionOutcome, Status

_STATUS_OF_EXTRACTION = {
    ExtractionOutcome.NO_CHANGE: Status.NO_PATCH,
    ExtractionOutcome.MALFORMED: Status.MALFORMED,
}


def outcome_without_patch(candidate: Candidate) -> Outcome | None:
    """The outcome of a candidate without a usable patch, which needs no test run."""
    if candidate.is_no_op:
        return None
    if status := _STATUS_OF_EXTRACTION.get(candidate.extraction.outcome):
        return Outcome(status, {}, reason=candidate.extraction.reason)
    if not candidate.patch.strip():
        return Outcome(Status.NO_PATCH, {}, reason="the patch is empty")
    if patch_bytes(candidate.patch) is None:
        return Outcome(Status.MALFORMED, {}, reason="the patch is not encodable text")
    return None


def derive_outcome(job: GradeJob, timeout: float, execution: Execution) -> Outcome:
    """Derive the outcome of a run from its record and the logs in `log_dir`."""
    if (outcome := _outcome_without_report(job, timeout, execution)) is not None:
        return outcome
    log = job.log_dir / official.TEST_LOG
    report = official.judge(job.instance, job.candidate.patch, log)
    text = log.read_text(encoding="utf-8", errors="replace")
    status, reason = official.status_of(report, text)
    if status is not Status.RESOLVED and (execution.oom or _was_killed(text)):
        status, reason = Status.OOM, "the kernel killed the tests (out of memory)"
    elif status is Status.UNRESOLVED and _was_refused(job, execution):
        status, reason = Status.NOT_APPLIED, apply_error(_apply_log(job.log_dir))
    flags: tuple[str, ...] = ()
    if status is Status.RESOLVED:
        refused = _was_refused(job, execution)
        flags = trust_flags(job, text, execution.evidence, refused=refused)
    return Outcome(status, report, flags, reason)


def apply_error(log: str) -> str:
    """The first error of git in the log of the apply commands."""
    errors = (line for line in log.splitlines() if line.startswith("error:"))
    return next(errors, "no apply command accepts the patch")


def _outcome_without_report(
    job: GradeJob, timeout: float, execution: Execution
) -> Outcome | None:
    """The outcome of a run that ended before it had a log to judge."""
    if execution.fault:
        return Outcome(Status.INFRA_ERROR, {}, reason=execution.fault)
    if execution.timed_out:
        reason = f"the tests did not finish within {timeout:g} seconds"
        if not execution.tested:
            reason = f"the patch did not apply within {APPLY_SECONDS:.0f} seconds"
        return Outcome(Status.TIMEOUT, {}, reason=reason)
    if execution.tested:
        return None
    if execution.oom:
        return Outcome(Status.OOM, {}, reason="out of memory while applying the patch")
    if execution.apply_code == REFUSED:
        error = apply_error(_apply_log(job.log_dir))
        # File names in a patch cannot forge the end of git's error.
        is_full = error.endswith(f": {official.DISK_FULL}")
        status = Status.INFRA_ERROR if is_full else Status.NOT_APPLIED
        return Outcome(status, {}, reason=error)
    if execution.apply_code == NO_GIT:
        reason = "the sandbox has no git"
    else:
        reason = f"the apply script exited with code {execution.apply_code}"
    return Outcome(Status.INFRA_ERROR, {}, reason=reason)


def _was_refused(job: GradeJob, execution: Execution) -> bool:
    """Whether there was a patch that did not apply. Pro runs the tests anyway."""
    return execution.apply_code == REFUSED and not job.candidate.is_no_op


def _apply_log(log_dir: Path) -> str:
    return (log_dir / official.APPLY_LOG).read_text(encoding="utf-8", errors="replace")


def _was_killed(log: str) -> bool:
    """Whether SIGKILL ended the test command itself."""
    from swebench.harness.grading import parse_test_exit_code

    return bool(parse_test_exit_code(log) == KILLED)
