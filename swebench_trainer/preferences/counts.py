"""Which candidates a pair can be made of, and why some instances give none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.types import Candidate, Status, Verdict

TIERS = (
    Status.UNRESOLVED,
    Status.NOT_APPLIED,
    Status.MALFORMED,
    Status.NO_PATCH,
)
"""Statuses of a decided failure, the hardest to tell from a success first."""

Graded = tuple[Candidate, Verdict]


def passes(instance: GradedInstance) -> list[Graded]:
    """Trusted passes, by sample; of equal ones the first."""
    return _distinct(g for g in _in_order(instance) if g[1].trusted_pass)


def failures(instance: GradedInstance) -> list[Graded]:
    """Decided failures, the hardest first; of equal ones the first."""
    failed = [g for g in _in_order(instance) if g[1].status in TIERS]
    return _distinct(sorted(failed, key=lambda g: TIERS.index(g[1].status)))


def _in_order(instance: GradedInstance) -> list[Graded]:
    return sorted(instance.graded, key=lambda g: (g[0].sample, g[0].model))


def _distinct(graded: Iterable[Graded]) -> list[Graded]:
    """Leaves out whoever repeats the text or the (non-empty) patch of an earlier one."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for candidate, verdict in graded:
        keys = {("text", candidate.text)}
        if candidate.patch:
            keys.add(("patch", candidate.patch))
        if not keys & seen:
            kept.append((candidate, verdict))
        seen |= keys
    return kept


def limits(graded: Iterable[GradedInstance]) -> dict[str, int]:
    """Why instances have no pass to choose or no failure to reject, by count.

    An instance that has both is not counted. Which of the reasons cost pairs is
    the strategy's to say: `api-rejects` needs no pass, nor does `self-generated`
    as long as gold may stand in.
    """
    return dict(Counter(reason for g in graded if (reason := _limit(g))))


def _limit(instance: GradedInstance) -> str:
    decided = [v for _, v in instance.graded if v.reward is not None]
    if not instance.graded:
        return "no candidates"
    if not decided:
        return "no candidate decided"
    if not failures(instance):
        return "all candidates pass"
    if passes(instance):
        return ""
    flagged = any(verdict.flags for verdict in decided if verdict.reward == 1)
    return "no pass that is trusted" if flagged else "no candidate passes"
