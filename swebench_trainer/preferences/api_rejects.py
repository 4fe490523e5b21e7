"""`api-rejects`: the gold patch is preferred to failures of other models."""

from __future__ import annotations

from dataclasses import replace

from swebench_trainer.contracts import GradedInstance, MissingForPair
from swebench_trainer.preferences.balance import (
    BalancedStrategy,
    BalancedTable,
    Share,
    length_gap,
)
from swebench_trainer.preferences.eligibility import (
    Reject,
    differing,
    failures,
    preference,
)
from swebench_trainer.preferences.tiers import TIERS
from swebench_trainer.types import Pair


class ApiRejectsTable(BalancedTable):
    """Gold, and candidates of the models in `[generate] model`."""

    graded: bool = True
    """Whether rejects must have failed their tests. `false` needs no `[grade]` and takes every patch that differs from gold: some of them are correct, and training discourages those too. Such pairs have the tier `ungraded`, and `stats.json` records the setting."""
    restyle: bool = True
    """Whether to rewrite a reject's patch in the answer format, as gold is written. `false` keeps the model's own words, whose style may give the reject away without its code."""
    length_skew: Share = 0.25
    """Maximum share of pairs with a length difference that no pair in the opposite direction balances. At 0, length says nothing about which answer is better; 1 sets no bound."""

    @property
    def needs_grades(self) -> bool:
        """See `PairsTable.needs_grades`."""
        return self.graded

    @property
    def renders(self) -> bool:
        """See `PairsTable.renders`."""
        return self.restyle


class ApiRejects(BalancedStrategy[ApiRejectsTable]):
    """Prefers gold to decided failures; makes no pair if gold has no answer text."""

    def _offers(self, instance: GradedInstance) -> list[Pair]:
        """Every reject of an instance; within a tier, the closest to gold's length first."""
        rejects = self._rejects(instance) if instance.gold else []
        offers = [
            self._restyled(
                preference(instance, self._table.use, None, reject),
                instance.rendered.get(reject[0].patch),
            )
            for reject in rejects
        ]
        order = {str(tier): place for place, tier in enumerate(TIERS)}
        return sorted(
            offers, key=lambda pair: (order[pair.tier], abs(length_gap(pair)))
        )

    def _rejects(self, instance: GradedInstance) -> list[Reject]:
        return failures(instance) if self._table.graded else differing(instance)

    def _restyled(self, pair: Pair, answer: str | None) -> Pair:
        if not self._table.restyle or not answer or answer == pair.rejected:
            return pair
        return replace(pair, rejected=answer, restyled=True)

    def _missing(self, instance: GradedInstance) -> MissingForPair | None:
        if not instance.gold:
            return MissingForPair.NO_GOLD
        if self._rejects(instance):
            return None
        if self._table.graded:
            return super()._missing(instance)
        if instance.ungraded:
            return MissingForPair.CANDIDATES_REPEAT_GOLD
        return MissingForPair.NO_CANDIDATES
