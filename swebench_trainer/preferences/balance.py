"""Which of all possible pairs are taken, so that shares and lengths are as asked.

Pairs come in order of preference. Of what a rule has too much, half is left out, from
the end; others take its place where an instance has more, and all is counted anew until
every rule holds. Each round leaves some out for good, so there is an end. All at once
would be too many: what takes their place makes room for some of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from math import floor, log
from typing import Annotated, Self

from pydantic import Field, model_validator

from swebench_trainer.preferences.tiers import FORMAT
from swebench_trainer.recipe.models import PairsTable, Table
from swebench_trainer.types import Pair

Share = Annotated[float, Field(ge=0, le=1)]


class Mix(Table):
    """At most which share of the pairs may have a reject of which tier; what is not named has no bound."""

    breaks_others: Share = 1.0
    """Fixes what the issue asks for and breaks other tests."""
    fails: Share = 1.0
    """Applies, and does not fix the issue."""
    ungraded: Share = 1.0
    """Was not graded (`graded = false` of `api-rejects`)."""
    not_applied: Share = 1.0
    """Does not apply."""
    malformed: Share = 1.0
    """Is no patch in the expected form."""
    no_patch: Share = 1.0
    """Changes nothing."""

    @model_validator(mode="after")
    def _some_pair_is_possible(self) -> Self:
        if sum(share for _, share in self) < 1:
            raise ValueError("the shares of all tiers together are less than 1")
        return self


class BalancedTable(PairsTable):
    """Base of the strategies that put a good answer against a bad one."""

    mix: Mix = Mix()
    """At most which share of the pairs may be of which tier of rejects, such as `{ fails = 0.7, not_applied = 0.3 }`; what is not named has no bound. Shares that add up to 1 are met as they are, by as many pairs as the scarcest tier allows."""
    max_format: Share = 0.5
    """Largest share of the pairs whose reject says nothing about the issue: it does not apply, is malformed, or changes nothing. Otherwise DPO may learn the form of an answer alone."""
    length_skew: Share = 0.5
    """Largest share of the pairs that may be of unlike length without a pair that is so the other way round. 0 gives length no say about which answer is better, 1 takes pairs as they come."""


Rule = Callable[[Sequence[Pair]], list[int]]
"""Which pairs, by their place, are too many; the last ones are wanted least."""


def balanced(
    offers: Sequence[Pair], table: BalancedTable
) -> tuple[list[Pair], dict[str, int]]:
    """Takes pairs as far as the table's bounds allow.

    Args:
        offers: All possible pairs, the preferred ones first.
        table: The bounds. A share above 0 allows one pair at least.

    Returns:
        The pairs in their order, and how many each key has held back.
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
            yield f"mix.{tier}", partial(_too_many, frozenset({tier}), share)
    if table.max_format < 1:
        yield "max_format", partial(_too_many, FORMAT, table.max_format)
    if table.length_skew < 1:
        yield "length_skew", partial(_one_way, table.length_skew)


def _too_many(tiers: Collection[str], share: float, pairs: Sequence[Pair]) -> list[int]:
    members = [place for place, pair in enumerate(pairs) if pair.tier in tiers]
    return members[_most(len(members), len(pairs), share) :]


def _most(members: int, total: int, share: float) -> int:
    """How many of the members may stay so that they are no larger share of what is left."""
    others = total - members
    least = 1 if share else 0  # else the only pair there is would always be too many
    while members > max(least, floor(share * (others + members) + 1e-9)):
        members -= 1
    return members


def _one_way(share: float, pairs: Sequence[Pair]) -> list[int]:
    """Pairs of unlike length that are too many, the most unlike ones last."""
    by_gap: dict[int, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        by_gap[gap(pair)].append(place)
    unmatched = [
        (abs(size), place)
        for size, places in list(by_gap.items())
        for place in (places[len(by_gap.get(-size, ())) :] if size else ())
    ]
    stay = _most(len(unmatched), len(pairs), share)
    return [place for _, place in sorted(unmatched)[stay:]]


def gap(pair: Pair) -> int:
    """How much longer `chosen` is, in steps of one half more; negative if it is shorter."""
    chosen, rejected = (len(text or "") + 1 for text in (pair.chosen, pair.rejected))
    return round(log(chosen / rejected) / log(1.5))


def _capped(pairs: Sequence[Pair], most: int) -> list[int]:
    """Places of the first so many pairs of each instance."""
    counts: Counter[str] = Counter()
    places = []
    for place, pair in enumerate(pairs):
        counts[pair.instance_id] += 1
        if counts[pair.instance_id] <= most:
            places.append(place)
    return places
