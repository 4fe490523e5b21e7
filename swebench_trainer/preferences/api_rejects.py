"""`api-rejects`: the gold patch is preferred to what other models got wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from swebench_trainer.contracts import GradedInstance
from swebench_trainer.preferences.balance import (
    BalancedTable,
    Share,
    balanced,
    gap,
)
from swebench_trainer.preferences.counts import lack
from swebench_trainer.preferences.offers import in_rows, in_turn
from swebench_trainer.preferences.select import differing, failures, preference
from swebench_trainer.preferences.tiers import TIERS
from swebench_trainer.types import Candidate, Pair, Tier


class ApiRejectsTable(BalancedTable):
    """Gold, and candidates of whoever `[generate] model` names."""

    graded: bool = True
    """Whether rejects must have failed their tests. `false` needs no `[grade]` and takes every patch that is another one than gold: some of them will be right, and training turns the model away from them. Each such pair has the tier `ungraded`, and `stats.json` says so."""
    restyle: bool = True
    """Write the patch of a reject in the answer form, as gold is written. `false` keeps the writer's own words, which may tell it from gold without a look at the code."""
    length_skew: Share = 0.25
    """Largest share of the pairs that may be of unlike length without a pair that is so the other way round. 0 gives length no say about which answer is better, 1 takes pairs as they come."""

    @property
    def needs_grades(self) -> bool:
        """See `PairsTable.needs_grades`."""
        return self.graded

    @property
    def renders(self) -> bool:
        """See `PairsTable.renders`."""
        return self.restyle


class ApiRejects:
    """Gold against decided failures of whoever wrote the candidates."""

    def __init__(self, table: ApiRejectsTable) -> None:
        self._table = table

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Pairs by instance, hard failures first; none where gold has no answer form."""
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
        """Every reject of an instance; of those of one tier the nearest in length first."""
        rejected = self._rejects(instance) if instance.gold else []
        offers = [
            self._styled(
                preference(instance, self._table.use, None, candidate, tier),
                instance.rendered.get(candidate.patch),
            )
            for candidate, tier in rejected
        ]
        order = {str(tier): place for place, tier in enumerate(TIERS)}
        return sorted(offers, key=lambda pair: (order[pair.tier], abs(gap(pair))))

    def _rejects(self, instance: GradedInstance) -> list[tuple[Candidate, Tier]]:
        return failures(instance) if self._table.graded else differing(instance)

    def _styled(self, pair: Pair, answer: str | None) -> Pair:
        if not self._table.restyle or not answer or answer == pair.rejected:
            return pair
        return replace(pair, rejected=answer, restyled=True)

    def _lack(self, instance: GradedInstance) -> str:
        if not instance.gold:
            return "gold has no answer form"
        if self._rejects(instance):
            return ""
        if self._table.graded:
            return lack(instance)
        return "every candidate repeats gold" if instance.ungraded else "no candidates"
