"""`tiered`: the answer with the higher reward is preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.balance import BalancedStrategy, BalancedTable
from swebench_trainer.preferences.eligibility import (
    Reject,
    failures,
    passes,
    preference,
)
from swebench_trainer.preferences.ordering import balanced_product
from swebench_trainer.preferences.tiers import FORMAT
from swebench_trainer.types import Candidate, Pair


class TieredTable(BalancedTable):
    """Graded candidates by reward: +1 for a pass (gold if none passes), 0 for a patch that applies and fails, -1 for one that does not apply. `chosen` may fail too; `chosen_tier` has its tier."""


class Tiered(BalancedStrategy[TieredTable]):
    """Prefers passes to failures, and failures that apply to those that do not."""

    def _offers(self, instance: GradedInstance) -> list[Pair]:
        failed = failures(instance)
        zero = [reject for reject in failed if reject[1] not in FORMAT]
        below = [reject for reject in failed if reject[1] in FORMAT]
        best: Sequence[Candidate | None] = [c for c, _ in passes(instance)]
        best = best or ([None] if instance.gold else [])
        upper = self._step(instance, [(c, "") for c in best], zero or below)
        lower = self._step(instance, [(c, str(tier)) for c, tier in zero], below)
        alternating = chain.from_iterable(zip_longest(upper, lower))
        return [pair for pair in alternating if pair]

    def _step(
        self,
        instance: GradedInstance,
        better: Sequence[tuple[Candidate | None, str]],
        worse: Sequence[Reject],
    ) -> list[Pair]:
        """Every answer of one reward preferred to every answer of a lower one."""
        return [
            replace(
                preference(instance, self._table.use, better[i][0], worse[j]),
                chosen_tier=better[i][1],
            )
            for i, j in balanced_product(len(better), len(worse))
        ]
