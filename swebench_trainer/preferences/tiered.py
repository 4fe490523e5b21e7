"""`tiered`: of two answers the one with the higher reward is preferred."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.balance import BalancedTable, balanced
from swebench_trainer.preferences.counts import limits
from swebench_trainer.preferences.offers import evenly, in_rows, in_turn
from swebench_trainer.preferences.select import Reject, failures, passes, preference
from swebench_trainer.preferences.tiers import FORMAT
from swebench_trainer.types import Candidate, Pair


class TieredTable(BalancedTable):
    """Graded candidates by reward: +1 passes (or gold where none does), 0 applies and fails, -1 does not apply. A `chosen` may be wrong too; `chosen_tier` says how."""


class Tiered:
    """Passes above failures, and failures that apply above those that do not."""

    def __init__(self, table: TieredTable) -> None:
        self._table = table

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Pairs by instance, of neighbouring rewards."""
        return in_rows(self._balanced(graded)[0])

    def limits(self, graded: Sequence[GradedInstance]) -> Mapping[str, int]:
        """What instances lack, and how many pairs each key holds back."""
        return {**limits(graded), **self._balanced(graded)[1]}

    def _balanced(
        self, graded: Sequence[GradedInstance]
    ) -> tuple[list[Pair], dict[str, int]]:
        return balanced(in_turn(map(self._offers, graded)), self._table)

    def _offers(self, instance: GradedInstance) -> list[Pair]:
        failed = failures(instance)
        zero = [reject for reject in failed if reject[1] not in FORMAT]
        below = [reject for reject in failed if reject[1] in FORMAT]
        best: Sequence[Candidate | None] = [c for c, _ in passes(instance)]
        best = best or ([None] if instance.gold else [])
        upper = self._step(instance, [(c, "") for c in best], zero or below)
        lower = self._step(instance, [(c, str(tier)) for c, tier in zero], below)
        turns = chain.from_iterable(zip_longest(upper, lower))
        return [pair for pair in turns if pair]

    def _step(
        self,
        instance: GradedInstance,
        better: Sequence[tuple[Candidate | None, str]],
        worse: Sequence[Reject],
    ) -> list[Pair]:
        """Every answer of one reward above every one of another."""
        return [
            replace(
                preference(instance, self._table.use, better[i][0], *worse[j]),
                chosen_tier=better[i][1],
            )
            for i, j in evenly(len(better), len(worse))
        ]
