"""Why instances give no pair, by count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.select import (
    distinct,
    failures,
    is_failure,
    is_told,
    passes,
    said_by_passes,
)


def limits(graded: Iterable[GradedInstance]) -> dict[str, int]:
    """What instances lack for a pair, as a phrase with their number.

    `api-rejects` does without a pass, and so does `self-generated` as long as
    gold may stand in; every other phrase means that the instance gives no pair.
    Instances that lack nothing are not counted.
    """
    return dict(Counter(filter(None, map(lack, graded))))


def lack(instance: GradedInstance) -> str:
    """What the instance lacks for a pair of its own candidates; empty if nothing."""
    decided = [v for _, v in instance.graded if v.reward is not None]
    failed = [g for g in instance.graded if is_failure(g[1])]
    if not instance.graded:
        return "no candidates"
    if not decided:
        return "no candidate decided"
    if all(verdict.reward == 1 for verdict in decided):
        return "all candidates pass"
    if not failed:
        return "every failure is flaky or a timeout"
    if not any(is_told(candidate) for candidate, _ in failed):
        return "no failure can be written in the answer form"
    if not distinct(instance, failed, said_by_passes(instance)):
        return "every failure repeats a pass"
    if not failures(instance):
        return "every failure repeats gold"
    if passes(instance):
        return ""
    if not instance.gold:
        return "no pass, and gold has no answer form"
    flagged = any(verdict.reward == 1 for verdict in decided)
    return "no pass is trusted" if flagged else "no candidate passes"
