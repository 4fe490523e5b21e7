"""The built-in strategies: which answers they put against each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest
from math import lcm
from typing import ClassVar, Literal, Self

from pydantic import PositiveInt, model_validator

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
    only_chosen,
    only_rejected,
    pass_rate,
    passes,
    preference,
)
from swebench_trainer.preferences.tiers import FORMAT, TIERS
from swebench_trainer.recipe.models import PairsTable
from swebench_trainer.types import Candidate, Pair


class SelfGeneratedTable(BalancedTable):
    """Graded candidates of the trained model on both sides."""

    min_pass_rate: Share = 0.0
    """Minimum share of an issue's candidates that must pass. An issue with a lower pass rate, or without any pass, is too hard."""
    max_pass_rate: Share = 1.0
    """Maximum share of an issue's candidates that may pass. An issue with a higher pass rate, or without any failure, is too easy."""
    outside: Literal["gold", "skip"] = "gold"
    """Pairs of an issue whose pass rate is outside that range: `gold` prefers the gold patch to the failures (`chosen_source` is `gold`), `skip` makes none."""

    @model_validator(mode="after")
    def _require_nonempty_range(self) -> Self:
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError("min_pass_rate is above max_pass_rate")
        return self


class SelfGenerated(BalancedStrategy[SelfGeneratedTable]):
    """Passing candidates chosen, failing ones rejected.

    Passes are trusted, failures are decided, and both are of the same instance.
    """

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
        rate = pass_rate(instance) or 0
        return (
            rate > 0 and self._table.min_pass_rate <= rate <= self._table.max_pass_rate
        )

    def _missing(self, instance: GradedInstance) -> MissingForPair | None:
        if reason := super()._missing(instance):
            return reason
        within = self._in_range(instance)
        return None if within else MissingForPair.PASS_RATE_OUT_OF_RANGE


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
    """Gold chosen, failing candidates of any writer rejected.

    Failures are decided. An instance whose gold has no answer text makes no pair.
    """

    def _offers(self, instance: GradedInstance) -> list[Pair]:
        """Every reject of an instance; within a tier, the closest to gold's length first."""
        rejects = self._rejects(instance) if instance.gold else []
        offers = [self._offer(instance, reject) for reject in rejects]
        tiers = list(map(str, TIERS))
        offers.sort(key=lambda pair: (tiers.index(pair.tier), abs(length_gap(pair))))
        return offers

    def _rejects(self, instance: GradedInstance) -> list[Reject]:
        return failures(instance) if self._table.graded else differing(instance)

    def _offer(self, instance: GradedInstance, reject: Reject) -> Pair:
        pair = preference(instance, self._table.use, None, reject)
        answer = instance.rendered.get(reject[0].patch)
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


class TieredTable(BalancedTable):
    """Graded candidates by reward: +1 for a pass (gold if none passes), 0 for a patch that applies and fails, -1 for one that does not apply. `chosen` may fail too; `chosen_tier` has its tier."""


class Tiered(BalancedStrategy[TieredTable]):
    """Candidates with a higher reward chosen, with the next lower one rejected."""

    def _offers(self, instance: GradedInstance) -> list[Pair]:
        failed = failures(instance)
        zero = [reject for reject in failed if reject[1] not in FORMAT]
        below = [reject for reject in failed if reject[1] in FORMAT]
        best: Sequence[Candidate | None] = [c for c, _ in passes(instance)]
        best = best or ([None] if instance.gold else [])
        upper = self._step(instance, [(c, "") for c in best], zero or below)
        lower = self._step(instance, [(c, str(tier)) for c, tier in zero], below)
        return list(alternating(upper, lower))

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


class UnpairedTable(PairsTable):
    """Graded candidates as single answers, for `[dpo] loss = "kto"`."""

    one_sided: ClassVar[bool] = True

    max_per_instance: PositiveInt = 16
    """Maximum number of answers per instance, alternating good and bad."""
    gold_fallback: bool = True
    """Whether to add the gold patch as a good answer of an issue whose candidates all fail."""


class Unpaired:
    """Passing candidates good, failing ones bad, without pairing them (kto)."""

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
            better = (only_chosen(instance, use, answer) for answer in good)
            worse = (only_rejected(instance, use, reject) for reject in bad)
            yield from islice(alternating(better, worse), self._table.max_per_instance)


def alternating(first: Iterable[Pair], second: Iterable[Pair]) -> Iterator[Pair]:
    """One of each in turn, then what is left of the longer side."""
    return filter(None, chain.from_iterable(zip_longest(first, second)))


def by_length_of(
    rejected: Sequence[Candidate], chosen: Sequence[Candidate]
) -> list[Candidate]:
    """Orders `chosen` so that each has nearly the length of the reject at its place.

    Those left over follow in their old order.
    """
    left = list(chosen)
    order = []
    for other in rejected[: len(chosen)]:
        nearest = min(left, key=lambda c: abs(len(c.text) - len(other.text)))
        left.remove(nearest)
        order.append(nearest)
    return order + left


def balanced_product(chosen: int, rejected: int) -> Iterator[tuple[int, int]]:
    """Every pair of indexes once, such that any prefix uses both sides evenly."""
    # Both indexes cycle at their own pace and would repeat after the least common
    # multiple, so one side then shifts by one.
    for n in range(chosen * rejected):
        yield (n + n // lcm(chosen, rejected)) % chosen, n % rejected
