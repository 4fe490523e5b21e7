"""All pairs that could be made, in the order in which they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import lcm

from swebench_trainer.preferences.tiers import TIERS
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Candidate, Pair


def in_turn(offers: Iterable[Sequence[Pair]]) -> list[Pair]:
    """The pairs of all instances: the first of each, hard rejects first, then the second.

    Instances of one rank come in the order of digests of their names, so that what is
    left out at the end hits no repository more than others.
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


def in_rows(pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs by instance, each in the order in which it was wanted."""
    return sorted(pairs, key=lambda pair: pair.instance_id)


def nearest_first(
    chosen: Sequence[Candidate], rejected: Sequence[Candidate]
) -> list[Candidate]:
    """The chosen ones so that each of the rejected, in turn, has the nearest in length.

    Those that are left over follow.
    """
    left = list(chosen)
    order = []
    for other in rejected[: len(chosen)]:
        nearest = min(left, key=lambda c: abs(len(c.text) - len(other.text)))
        left.remove(nearest)
        order.append(nearest)
    return order + left


def evenly(chosen: int, rejected: int) -> Iterator[tuple[int, int]]:
    """Every combination once; after any number of them both sides are used evenly."""
    # Both indexes go round at their own pace and would meet again after the
    # least common multiple: one side then moves on by one.
    for n in range(chosen * rejected):
        yield (n + n // lcm(chosen, rejected)) % chosen, n % rejected
