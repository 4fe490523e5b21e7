"""`self-generated`: a model's own passes are preferred to its own failures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import lcm

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.select import (
    Graded,
    failures,
    like_gold,
    passes,
    preference,
)
from swebench_trainer.recipe.models import PairsTable
from swebench_trainer.types import Pair


class SelfGeneratedTable(PairsTable):
    """Graded candidates of the model itself, on both sides."""

    gold_fallback: bool = True
    """Choose the gold patch where no candidate passes; `false` makes no pair there."""


class SelfGenerated:
    """Trusted passes against decided failures of the same instance."""

    def __init__(self, table: SelfGeneratedTable) -> None:
        self._table = table

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Pairs by instance, hard failures first, each candidate used evenly."""
        for instance in graded:
            chosen: list[Graded | None] = [*passes(instance)]
            rejected = failures(instance)
            if not chosen and self._table.gold_fallback and instance.gold:
                chosen = [None]
                rejected = [g for g in rejected if not like_gold(g[0], instance)]
            combinations = _evenly(len(chosen), len(rejected))
            for _, (i, j) in zip(
                range(self._table.max_per_instance), combinations, strict=False
            ):
                yield preference(instance, self._table.use, chosen[i], rejected[j])


def _evenly(chosen: int, rejected: int) -> Iterator[tuple[int, int]]:
    """Every combination once; after any number of them both sides are used evenly."""
    # Both indexes go round at their own pace and would meet again after the
    # least common multiple: one side then moves on by one.
    for n in range(chosen * rejected):
        yield (n + n // lcm(chosen, rejected)) % chosen, n % rejected
