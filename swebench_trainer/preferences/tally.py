"""Pairs by what they are: the counts of `stats.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.balance import gap
from swebench_trainer.types import AnswerRef, Pair


def tally(pairs: Sequence[Pair], graded: Sequence[GradedInstance]) -> dict[str, Any]:
    """Counts pairs by strategy, tier, source of `chosen`, repository, issue and length.

    Args:
        pairs: The pairs.
        graded: What they were made from.
    """
    repos = {item.instance.instance_id: item.instance.repo for item in graded}
    both = [gap(p) for p in pairs if p.chosen is not None and p.rejected is not None]
    return {
        "by strategy": Counter(pair.strategy for pair in pairs),
        "by tier": Counter(str(pair.tier) for pair in pairs),
        "by chosen": Counter(_kind(pair.chosen_source) for pair in pairs),
        "by repository": Counter(repos.get(pair.instance_id, "") for pair in pairs),
        "by instance": Counter(pair.instance_id for pair in pairs),
        "restyled": sum(pair.restyled for pair in pairs),
        "compared by changed lines": sum(
            not patches_of(i) <= i.forms.keys() for i in graded
        ),
        "lengths": {
            "chosen longer": sum(size > 0 for size in both),
            "alike": both.count(0),
            "rejected longer": sum(size < 0 for size in both),
        },
    }


def patches_of(item: GradedInstance) -> set[str]:
    """The patches of an instance's candidates."""
    candidates = [*(candidate for candidate, _ in item.graded), *item.ungraded]
    return {c.patch for c in candidates if c.patch.strip()}


def _kind(source: AnswerRef) -> str:
    if source.is_gold:
        return "gold"
    return "none" if source.sample is None else "sample"
