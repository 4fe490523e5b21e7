"""`self-generated`: the model's own passes are preferred to its own failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.counts import failures, passes
from swebench_trainer.recipe.models import PairsTable
from swebench_trainer.types import Pair

NAME = "self-generated"


class SelfGeneratedTable(PairsTable):
    """Pairs of graded candidates of the model itself."""

    use: str = NAME
    """Strategy: `self-generated`, `api-rejects`, or a plugin's."""
    gold_fallback: bool = True
    """Choose the gold patch where no candidate passes; without it such an instance gives no pair."""


class SelfGenerated:
    """Pairs of one instance's trusted passes and decided failures."""

    def __init__(self, table: SelfGeneratedTable) -> None:
        self._table = table

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """The hardest failures first, passes and failures used evenly."""
        for instance in graded:
            yield from islice(self._pairs_of(instance), self._table.max_per_instance)

    def _pairs_of(self, instance: GradedInstance) -> Iterator[Pair]:
        chosen = [(c.text, c.patch, f"sample:{c.sample}") for c, _ in passes(instance)]
        if not chosen and self._table.gold_fallback:
            chosen = [(instance.gold, instance.instance.patch, "gold")]
