"""The order in which possible pairs are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import lcm

from swebench_trainer.preferences.tiers import TIERS
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Candidate, Pair


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


def by_instance(pairs: Iterable[Pair]) -> list[Pair]:
    """Groups pairs by instance and keeps their order within each."""
    return sorted(pairs, key=lambda pair: pair.instance_id)


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
