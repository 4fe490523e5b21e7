"""How a run of changed tests ended: derived from its log each time, as verdicts are."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from pathlib import Path

from swebench_trainer.grading.official import TEST_LOG
from swebench_trainer.grading.trust.log_flags import Transcript, without_result
from swebench_trainer.types import Instance, Status, Verdict

JUDGED = (Status.RESOLVED, Status.UNRESOLVED)
"""Statuses of runs whose tests ran to their end."""


class CounterResult(StrEnum):
    """How the changed tests ended."""

    FAILED = "failed"
    """Each of them failed, as it should."""
    PASSED = "passed"
    """One of them did not fail: it passed, was skipped, or has no result."""
    UNDECIDED = "undecided"
    """The run did not end, or a changed test ended with an error."""


def counter_result(
    instance: Instance, tests: Collection[str], verdict: Verdict, log_dir: Path
) -> CounterResult:
    """Judge a run of changed tests.

    Args:
        instance: The instance; it may be the original one.
        tests: The changed tests.
        verdict: Verdict on the run.
        log_dir: Directory with its log.
    """
    log = _transcript(instance, verdict, log_dir)
    if log is None:
        return CounterResult.UNDECIDED
    ends = {log.written.get(name) for name in tests}
    if ends == {"FAILED"}:
        return CounterResult.FAILED
    # An error shows neither that the assertions count nor that they do not.
    if ends <= {"FAILED", "ERROR"}:
        return CounterResult.UNDECIDED
    return CounterResult.PASSED


def calibrates(
    instance: Instance, tests: Collection[str], verdict: Verdict, log_dir: Path
) -> bool:
    """Whether a gold run shows that a change works: the changed tests fail, no other does.

    See `counter_result`; the verdict is on the gold patch.
    """
    if counter_result(instance, tests, verdict, log_dir) is not CounterResult.FAILED:
        return False
    log = _transcript(instance, verdict, log_dir)
    return log is not None and log.failed <= set(tests) and not without_result(log)


def _transcript(
    instance: Instance, verdict: Verdict, log_dir: Path
) -> Transcript | None:
    """The log of a run; `None` if its tests did not run to their end."""
    path = log_dir / TEST_LOG
    excused = verdict.report.get("infra_failure_reason")
    if verdict.status not in JUDGED or excused or not path.exists():
        return None
    return Transcript(instance, path.read_text(encoding="utf-8", errors="replace"))
