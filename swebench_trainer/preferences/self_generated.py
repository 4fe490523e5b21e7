"""`self-generated`: a model's own passes are preferred to its own failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from swebench_trainer.contracts import GradedInstance, MissingForPair
from swebench_trainer.preferences.balance import BalancedStrategy, BalancedTable
from swebench_trainer.preferences.eligibility import (
    failures,
    pass_rate,
    passes,
    preference,
)
from swebench_trainer.preferences.ordering import balanced_product, by_length_of
from swebench_trainer.types import Candidate, Pair

Rate = Annotated[float, Field(ge=0, le=1)]


class SelfGeneratedTable(BalancedTable):
    """Graded candidates of the trained model on both sides."""

    min_pass_rate: Rate = 0.0
    """Minimum share of an issue's candidates that must pass. An issue with a lower pass rate, or without any pass, is too hard."""
    max_pass_rate: Rate = 1.0
    """Maximum share of an issue's candidates that may pass. An issue with a higher pass rate, or without any failure, is too easy."""
    outside: Literal["gold", "skip"] = "gold"
    """Pairs of an issue whose pass rate is outside that range: `gold` prefers the gold patch to the failures (`chosen_source` is `gold`), `skip` makes none."""

    @model_validator(mode="after")
    def _require_nonempty_range(self) -> Self:
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError("min_pass_rate is above max_pass_rate")
        return self


class SelfGenerated(BalancedStrategy[SelfGeneratedTable]):
    """Prefers trusted passes to decided failures of the same instance."""

    def _offers(self, instance: GradedInstance) -> list[Pair]:
        rejected = failures(instance)
        chosen: Sequence[Candidate | None] = []
        if self._in_range(instance):
            passed = [candidate for candidate, _ in passes(instance)]
            chosen = by_length_of([candidate for candidate, _ in rejected], passed)
        elif self._table.outside == "gold" and instance.gold:
            chosen = [None]
        return [
            preference(instance, self._table.use, chosen[i], rejected[j])
            for i, j in balanced_product(len(chosen), len(rejected))
        ]

    def _in_range(self, instance: GradedInstance) -> bool:
        rate = pass_rate(instance)
        low, high = self._table.min_pass_rate, self._table.max_pass_rate
        return bool(rate) and rate is not None and low <= rate <= high

    def _missing(self, instance: GradedInstance) -> MissingForPair | None:
        if reason := super()._missing(instance):
            return reason
        within = self._in_range(instance)
        return None if within else MissingForPair.PASS_RATE_OUT_OF_RANGE
