"""`unpaired`: every pass is a good answer and every failure a bad one, without a pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice, zip_longest
from typing import ClassVar

from pydantic import PositiveInt

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.eligibility import (
    failures,
    only_chosen,
    only_rejected,
    passes,
)
from swebench_trainer.recipe.models import PairsTable
from swebench_trainer.types import Candidate, Pair


class UnpairedTable(PairsTable):
    """Graded candidates as single answers, for `[dpo] loss = "kto"`."""

    one_sided: ClassVar[bool] = True

    max_per_instance: PositiveInt = 16
    """Maximum number of answers per instance, alternating good and bad."""
    gold_fallback: bool = True
    """Whether to add the gold patch as a good answer of an issue whose candidates all fail."""


class Unpaired:
    """Trusted passes and decided failures, also from one-sided instances."""

    def __init__(self, table: UnpairedTable) -> None:
        self._table = table

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Answers by instance, alternating good and bad, hard failures first."""
        use = self._table.use
        for instance in sorted(graded, key=lambda item: item.instance.instance_id):
            good: list[Candidate | None] = [c for c, _ in passes(instance)]
            bad = failures(instance)
            if bad and not good and self._table.gold_fallback and instance.gold:
                good = [None]
            alternating = chain.from_iterable(
                zip_longest(
                    [only_chosen(instance, use, answer) for answer in good],
                    [only_rejected(instance, use, reject) for reject in bad],
                )
            )
            yield from islice(filter(None, alternating), self._table.max_per_instance)
