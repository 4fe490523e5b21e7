"""`unpaired`: every pass is a good answer and every failure a bad one, by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest
from typing import ClassVar

from pydantic import PositiveInt

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.select import alone, failures, passes, preference
from swebench_trainer.recipe.models import PairsTable
from swebench_trainer.types import AnswerRef, Candidate, Pair


class UnpairedTable(PairsTable):
    """Graded candidates that stand alone, for `[dpo] loss = "kto"`."""

    one_sided: ClassVar[bool] = True

    max_per_instance: PositiveInt = 16
    """At most so many answers of one instance, good and bad in turn."""
    gold_fallback: bool = True
    """Add the gold patch as a good answer where candidates fail and none passes."""


class Unpaired:
    """Trusted passes and decided failures, those of one-sided instances too."""

    def __init__(self, table: UnpairedTable) -> None:
        self._table = table

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Answers by instance, a good and a bad one in turn, hard failures first."""
        for instance in sorted(graded, key=lambda item: item.instance.instance_id):
            good: list[Candidate | None] = [c for c, _ in passes(instance)]
            bad = failures(instance)
            if bad and not good and self._table.gold_fallback and instance.gold:
                good = [None]
            use = self._table.use
            chosen = [alone(instance, use, g) for g in good]
            rejected = [
                replace(
                    preference(instance, use, None, *b),
                    chosen=None,
                    chosen_source=AnswerRef(),
                )
                for b in bad
            ]
            turns = chain.from_iterable(zip_longest(chosen, rejected))
            yield from islice(filter(None, turns), self._table.max_per_instance)
