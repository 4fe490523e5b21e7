"""Orders of rows other than plain random order."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial

from swebench_trainer.recipe.models import DpoTable, TrainTable
from swebench_trainer.store.draw import generator
from swebench_trainer.training.tokens.rows import Encoded

_POOL = 16
"""Batches whose rows are sorted together: few enough that batches stay mixed."""


class EpochSampler:
    """Yields row numbers in an order that depends on the seed and the epoch.

    Args:
        count: Number of rows.
        seed: Seed of the order.
        order: Returns the row numbers of one epoch.
    """

    def __init__(
        self, count: int, seed: int, order: Callable[[random.Random], Iterator[int]]
    ) -> None:
        self._count = count
        self._seed = seed
        self._order = order
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; accelerate calls this, also after a resume."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return self._order(generator(self._seed, self._epoch))


def sampler_for(
    rows: Sequence[Encoded], settings: TrainTable, seed: int
) -> EpochSampler | None:
    """The sampler for `group_by_length` or `group_by_prompt`, if the recipe sets one."""
    if settings.group_by_length:
        lengths = [row.length for row in rows]
        order = partial(by_length, lengths, settings.batch_size)
    elif isinstance(settings, DpoTable) and settings.group_by_prompt:
        order = partial(by_prompt, [tuple(row.prompt) for row in rows])
    else:
        return None
    return EpochSampler(len(rows), seed, order)


def by_length(
    lengths: Sequence[int], batch_size: int, rng: random.Random
) -> Iterator[int]:
    """Takes rows of similar length together, in batches in random order.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of an optimizer step.
        rng: Source of the order.
    """
    rows = rng.sample(range(len(lengths)), len(lengths))
    pools = _chunks(rows, batch_size * _POOL)
    order = [n for pool in pools for n in sorted(pool, key=lengths.__getitem__)]
    # The last batch may be short, so it stays last.
    *batches, last = _chunks(order, batch_size)
    for batch in [*rng.sample(batches, len(batches)), last]:
        yield from batch


def by_prompt(prompts: Sequence[Hashable], rng: random.Random) -> Iterator[int]:
    """Takes prompts in random order, and all pairs of a prompt before the next.

    Args:
        prompts: The prompt of each pair.
        rng: Source of the order.
    """
    pairs_of: dict[Hashable, list[int]] = {}
    for pair, prompt in enumerate(prompts):
        pairs_of.setdefault(prompt, []).append(pair)
    for pairs in rng.sample(list(pairs_of.values()), len(pairs_of)):
        yield from rng.sample(pairs, len(pairs))


def _chunks(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]
