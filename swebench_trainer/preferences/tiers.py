"""How wrong a failure is: its tier, and its share of passing tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swebench_trainer.types import Candidate, ExtractionOutcome, Status, Tier, Verdict

TIERS = tuple(Tier)
"""From the closest to a success to the farthest."""

FORMAT = frozenset({Tier.NOT_APPLIED, Tier.MALFORMED, Tier.NO_PATCH})
"""Tiers that teach the answer format and nothing about the issue."""

_TIER_OF = {
    Status.UNRESOLVED: Tier.FAILS,
    Status.NOT_APPLIED: Tier.NOT_APPLIED,
    Status.MALFORMED: Tier.MALFORMED,
    Status.NO_PATCH: Tier.NO_PATCH,
}
"""Tiers of decided failures; other statuses are not used for training."""

_TIER_OF_EXTRACTION = {
    ExtractionOutcome.NO_CHANGE: Tier.NO_PATCH,
    ExtractionOutcome.MALFORMED: Tier.MALFORMED,
}


def tier_of(verdict: Verdict) -> Tier | None:
    """The tier of a failure; `None` for passes and for failures not used for training.

    Timeouts are never used, even if the patch causes them: how slow is too slow depends
    on the machine.
    """
    tier = _TIER_OF.get(verdict.status)
    fixed, open_ = _counts(verdict.report, "FAIL_TO_PASS")
    _, broken = _counts(verdict.report, "PASS_TO_PASS")
    if tier is Tier.FAILS and fixed and broken and not open_:
        return Tier.BREAKS_OTHERS
    return tier


def ungraded_tier(candidate: Candidate) -> Tier:
    """The tier of an ungraded candidate."""
    if tier := _TIER_OF_EXTRACTION.get(candidate.extraction.outcome):
        return tier
    if not candidate.patch.strip():
        return Tier.NO_PATCH
    # The harness is less strict than `git apply`, but this is all that is known.
    refused = candidate.checks.applies is False
    return Tier.NOT_APPLIED if refused else Tier.UNGRADED


def share_of_passing_tests(verdict: Verdict) -> float:
    """Share of tests with the expected result; FAIL_TO_PASS counts for half of it."""
    groups = (_counts(verdict.report, f"{name}_TO_PASS") for name in ("FAIL", "PASS"))
    return sum(good / (good + bad) / 2 for good, bad in groups if good + bad)


def _counts(report: Mapping[str, Any], group: str) -> tuple[int, int]:
    """Number of tests of a group that pass, and that fail."""
    # A third-party grader may have a report of another form.
    tests = report.get("tests_status")
    ends = tests.get(group) if isinstance(tests, Mapping) else None
    if not isinstance(ends, Mapping):
        return 0, 0
    found = (ends.get("success"), ends.get("failure"))
    good, bad = (len(names) if isinstance(names, list) else 0 for names in found)
    return good, bad
