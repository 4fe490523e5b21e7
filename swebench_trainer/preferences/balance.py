"""Selection of pairs so that shares of tiers and lengths stay within their bounds.

Possible pairs come in order of preference. While some bound is exceeded, the last half
of its excess is removed; others take the free places of their instance, and every bound
is checked again. Each round removes pairs permanently, so the loop ends. Removing only
half at a time matters because the replacements can make room for some of the excess.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from math import floor, log
from typing import Annotated, Generic, Self, TypeVar

from pydantic import Field, model_validator

from swebench_trainer.contracts import Bottlenecks, GradedInstance, MissingForPair
from swebench_trainer.preferences.eligibility import missing_counts, missing_for_pair
from swebench_trainer.preferences.tiers import FORMAT, TIERS
from swebench_trainer.recipe.models import PairsTable, Table
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Pair

Share = Annotated[float, Field(ge=0, le=1)]


class Mix(Table):
    """Maximum share of pairs by the tier of their reject; a tier without a key has no bound."""

    breaks_others: Share = 1.0
    """Rejects that fix the issue and break other tests."""
    fails: Share = 1.0
    """Rejects that apply and do not fix the issue."""
    ungraded: Share = 1.0
    """Rejects that were not graded (`graded = false` of `api-rejects`)."""
    not_applied: Share = 1.0
    """Rejects that do not apply."""
    malformed: Share = 1.0
    """Rejects that are not a patch in the expected format."""
    no_patch: Share = 1.0
    """Rejects that change nothing."""

    @model_validator(mode="after")
    def _require_a_possible_pair(self) -> Self:
        if sum(share for _, share in self) < 1:
            raise ValueError("the shares of all tiers add up to less than 1")
        return self


class BalancedTable(PairsTable):
    """Base of the strategies that put a good answer against a bad one."""

    mix: Mix = Mix()
    """Maximum share of pairs by the tier of their reject, such as `{ fails = 0.7, not_applied = 0.3 }`; a tier without a key has no bound. Shares that add up to 1 are met exactly, by as many pairs as the scarcest tier allows."""
    max_format: Share = 0.5
    """Maximum share of pairs whose reject teaches nothing about the issue: it does not apply, is malformed, or changes nothing. With too many of them, DPO may learn only the answer format."""
    length_skew: Share = 0.5
    """Maximum share of pairs with a length difference that no pair in the opposite direction balances. At 0, length says nothing about which answer is better; 1 sets no bound."""


TableT = TypeVar("TableT", bound=BalancedTable)


class BalancedStrategy(ABC, Generic[TableT]):
    """A strategy that selects from all possible pairs within the bounds of its table."""

    def __init__(self, table: TableT) -> None:
        self._table = table

    def pairs(self, graded: Sequence[GradedInstance]) -> Iterable[Pair]:
        """Pairs by instance, hard failures first, using each candidate evenly."""
        return sorted(self._balanced(graded)[0], key=lambda pair: pair.instance_id)

    def limits(self, graded: Sequence[GradedInstance]) -> Bottlenecks:
        """See `LimitTeller.limits`."""
        missing = missing_counts(map(self._missing, graded))
        return Bottlenecks(missing, self._balanced(graded)[1])

    def _balanced(
        self, graded: Sequence[GradedInstance]
    ) -> tuple[list[Pair], dict[str, int]]:
        return balanced(round_robin(map(self._offers, graded)), self._table)

    @abstractmethod
    def _offers(self, instance: GradedInstance) -> list[Pair]:
        """Every possible pair of an instance, in order of preference."""

    def _missing(self, instance: GradedInstance) -> MissingForPair | None:
        """What the instance lacks for a pair."""
        return missing_for_pair(instance)


def round_robin(offers: Iterable[Sequence[Pair]]) -> list[Pair]:
    """One pair of each instance, hard rejects first, then a second of each, and so on.

    Ties are broken by the digest of the instance id, so that a cutoff does not favor
    any repository.
    """
    place = {str(tier): rank for rank, tier in enumerate(TIERS)}
    ranked = [
        (n, place.get(pair.tier, len(place)), drawn, pair)
        for pairs in offers
        for drawn in {digest(pair.instance_id) for pair in pairs[:1]}
        for n, pair in enumerate(pairs)
    ]
    ranked.sort(key=lambda offer: offer[:3])
    return [pair for *_, pair in ranked]


Rule = Callable[[Sequence[Pair]], list[int]]
"""Indexes of the pairs that exceed a bound, the least wanted last."""


def balanced(
    offers: Sequence[Pair], table: BalancedTable
) -> tuple[list[Pair], dict[str, int]]:
    """Selects as many pairs as the bounds allow.

    Args:
        offers: All possible pairs in order of preference.
        table: The bounds. A share above 0 allows at least one pair.

    Returns:
        The selected pairs in their order, and how many pairs each key has held back.
    """
    held: Counter[str] = Counter()
    left = list(offers)
    rules = dict(_rules(table))
    while True:
        places = _capped(left, table.max_per_instance)
        taken = [left[place] for place in places]
        found = ((key, rule(taken)) for key, rule in rules.items())
        key, excess = next((item for item in found if item[1]), ("", []))
        if not excess:
            held["max_per_instance"] += len(left) - len(taken)
            return taken, {key: count for key, count in held.items() if count}
        out = {places[place] for place in excess[len(excess) // 2 :]}
        held[key] += len(out)
        left = [pair for place, pair in enumerate(left) if place not in out]


def _rules(table: BalancedTable) -> Iterator[tuple[str, Rule]]:
    for tier, share in table.mix:
        if share < 1:
            yield f"mix.{tier}", partial(_excess_of_tiers, frozenset({tier}), share)
    if table.max_format < 1:
        yield "max_format", partial(_excess_of_tiers, FORMAT, table.max_format)
    if table.length_skew < 1:
        yield "length_skew", partial(_excess_of_length_gaps, table.length_skew)


def _excess_of_tiers(
    tiers: Collection[str], share: float, pairs: Sequence[Pair]
) -> list[int]:
    members = [place for place, pair in enumerate(pairs) if pair.tier in tiers]
    return members[_allowed(len(members), len(pairs), share) :]


def _allowed(members: int, total: int, share: float) -> int:
    """How many members may stay so that they are at most that share of the remaining pairs."""
    others = total - members
    least = 1 if share else 0  # otherwise a single pair would always be too many
    while members > max(least, floor(share * (others + members) + 1e-9)):
        members -= 1
    return members


def _excess_of_length_gaps(share: float, pairs: Sequence[Pair]) -> list[int]:
    """Unbalanced pairs above the share, those with the largest gap last."""
    by_gap: dict[int, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        by_gap[length_gap(pair)].append(place)
    unbalanced = [
        (abs(size), place)
        for size, places in list(by_gap.items())
        for place in (places[len(by_gap.get(-size, ())) :] if size else ())
    ]
    stay = _allowed(len(unbalanced), len(pairs), share)
    return [place for _, place in sorted(unbalanced)[stay:]]


def length_gap(pair: Pair) -> int:
    """How much longer `chosen` is, in factors of 1.5; negative if it is shorter."""
    chosen, rejected = (len(text or "") + 1 for text in (pair.chosen, pair.rejected))
    return round(log(chosen / rejected) / log(1.5))


def _capped(pairs: Sequence[Pair], most: int) -> list[int]:
    """Indexes of the first pairs of each instance, at most that many."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        places[pair.instance_id].append(place)
    return sorted(place for found in places.values() for place in found[:most])
