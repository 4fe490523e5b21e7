"""`self-generated`: a model's own passes are preferred to its own failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.balance import BalancedTable, balanced
from swebench_trainer.preferences.counts import lack
from swebench_trainer.preferences.offers import evenly, in_rows, in_turn, nearest_first
from swebench_trainer.preferences.select import (
    failures,
    pass_rate,
    passes,
    preference,
)
from swebench_trainer.types import Candidate, Pair

Rate = Annotated[float, Field(ge=0, le=1)]


class SelfGeneratedTable(BalancedTable):
    """Graded candidates of the model itself, on both sides."""

    min_pass_rate: Rate = 0.0
    """Least share of an issue's candidates that must pass, at least one of them in any case; below it the issue is too hard."""
    max_pass_rate: Rate = 1.0
    """Largest share of an issue's candidates that may pass, never all of them; above it the issue is too easy."""
    outside: Literal["gold", "skip"] = "gold"
    """What an issue with another pass rate gives: the gold patch as `chosen` against what fails (`chosen_source` says `gold`), or no pair."""

    @model_validator(mode="after")
    def _the_band_has_a_width(self) -> Self:
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError("min_pass_rate is above max_pass_rate")
        return self


class SelfGenerated:
    """Trusted passes against decided failures of the same instance."""

    def __init__(self, table: SelfGeneratedTable) -> None:
        self._table = table

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Pairs by instance, hard failures first, each candidate used evenly."""
        return in_rows(self._balanced(graded)[0])

    def limits(self, graded: Sequence[GradedInstance]) -> Mapping[str, int]:
        """What instances lack, and how many pairs each key holds back."""
        lacks = Counter(filter(None, map(self._lack, graded)))
        return {**lacks, **self._balanced(graded)[1]}

    def _balanced(
        self, graded: Sequence[GradedInstance]
    ) -> tuple[list[Pair], dict[str, int]]:
        return balanced(in_turn(map(self._offers, graded)), self._table)

    def _offers(self, instance: GradedInstance) -> list[Pair]:
        """Every pair that the instance could give."""
        rejected = failures(instance)
        chosen: Sequence[Candidate | None] = (
            [None] if self._falls_back(instance) else []
        )
        if self._in_band(instance):
            passed = [candidate for candidate, _ in passes(instance)]
            chosen = nearest_first(passed, [candidate for candidate, _ in rejected])
        return [
            preference(instance, self._table.use, chosen[i], *rejected[j])
            for i, j in evenly(len(chosen), len(rejected))
        ]

    def _in_band(self, instance: GradedInstance) -> bool:
        rate = pass_rate(instance)
        low, high = self._table.min_pass_rate, self._table.max_pass_rate
        return bool(rate) and rate is not None and low <= rate <= high

    def _falls_back(self, instance: GradedInstance) -> bool:
        return self._table.outside == "gold" and bool(instance.gold)

    def _lack(self, instance: GradedInstance) -> str:
        if reason := lack(instance):
            return reason
        return "" if self._in_band(instance) else "pass rate outside the band"
