"""Why instances give no pair, by count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.select import (
    failures,
    is_failure,
    like_gold,
    passes,
)


def limits(graded: Iterable[GradedInstance]) -> dict[str, int]:
    """What instances lack for a pair, as a phrase with their number.

    `api-rejects` does without a pass, and so does `self-generated` as long as
    gold may stand in; every other phrase means that the instance gives no pair.
    Instances that lack nothing are not counted.
    """
    return dict(Counter(filter(None, map(_lack, graded))))


def _lack(instance: GradedInstance) -> str:
    decided = [v for _, v in instance.graded if v.reward is not None]
    failed = failures(instance)
    if not instance.graded:
        return "no candidates"
    if not decided:
        return "no candidate decided"
    if all(verdict.reward == 1 for verdict in decided):
        return "all candidates pass"
    if not any(map(is_failure, decided)):
        return "every failure is flaky or a timeout"
    if not failed:
        return "every failure repeats a pass"
    if passes(instance):
        return ""
    if not instance.gold:
        return "no pass, and gold has no answer form"
    if all(like_gold(candidate, instance) for candidate, _ in failed):
        return "every failure repeats gold"
    flagged = any(verdict.reward == 1 for verdict in decided)
    return "no pass is trusted" if flagged else "no candidate passes"
