"""`api-rejects`: the gold patch is preferred to another model's failures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.select import failures, like_gold, preference
from swebench_trainer.recipe.models import PairsTable
from swebench_trainer.types import Pair


class ApiRejects:
    """Gold against decided failures of whoever wrote the candidates."""

    def __init__(self, table: PairsTable) -> None:
        self._table = table

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Pairs by instance, hard failures first; none where gold has no answer form."""
        for instance in graded:
            if not instance.gold:
                continue
            rejected = [g for g in failures(instance) if not like_gold(g[0], instance)]
            for failure in rejected[: self._table.max_per_instance]:
                yield preference(instance, self._table.use, None, failure)
