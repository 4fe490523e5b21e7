"""Orders of rows other than plain random order."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from swebench_trainer.recipe.models import TrainTable
from swebench_trainer.store.draw import generator
from swebench_trainer.training.tokens.rows import Encoded

_POOL = 16
"""Batches whose rows are sorted together: few enough that batches stay mixed."""


class EpochSampler:
    """Yields row numbers in an order that depends on the seed and the epoch.

    Args:
        count: Number of rows.
        seed: Seed of the order.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; accelerate calls this, also after a resume."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        rng = generator(self._seed, self._epoch)
        return self.order(rng)

    def order(self, rng: random.Random) -> Iterator[int]:
        """The row numbers of one epoch."""
        raise NotImplementedError  # each sampler has its own order


class LengthSampler(EpochSampler):
    """Takes rows of similar length together, in batches in random order.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of an optimizer step.
        seed: Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        super().__init__(len(lengths), seed)
        self._lengths = lengths
        self._size = batch_size

    def order(self, rng: random.Random) -> Iterator[int]:
        """See `EpochSampler.order`."""
        rows = rng.sample(range(len(self)), len(self))
        pools = _chunks(rows, self._size * _POOL)
        order = [
            n for pool in pools for n in sorted(pool, key=self._lengths.__getitem__)
        ]
        # The last batch may be short, so it stays last.
        *batches, last = _chunks(order, self._size)
        for batch in [*rng.sample(batches, len(batches)), last]:
            yield from batch


class PromptSampler(EpochSampler):
    """Takes prompts in random order, and all pairs of a prompt before the next.

    Args:
        prompts: The prompt of each pair.
        seed: Seed of the order.
    """

    def __init__(self, prompts: Sequence[Hashable], seed: int) -> None:
        super().__init__(len(prompts), seed)
        self._pairs: dict[Hashable, list[int]] = {}
        for pair, prompt in enumerate(prompts):
            self._pairs.setdefault(prompt, []).append(pair)

    def order(self, rng: random.Random) -> Iterator[int]:
        """See `EpochSampler.order`."""
        for pairs in rng.sample(list(self._pairs.values()), len(self._pairs)):
            yield from rng.sample(pairs, len(pairs))


def length_sampler(
    rows: Sequence[Encoded], settings: TrainTable, seed: int
) -> LengthSampler | None:
    """The sampler for `group_by_length`, if the recipe sets it."""
    if not settings.group_by_length:
        return None
    return LengthSampler([row.length for row in rows], settings.batch_size, seed)


def with_sampler(trainer_class: type[Any], sampler: Any) -> type[Any]:
    """A trainer that takes rows in a sampler's order; `None` leaves it unchanged."""
    if sampler is None:
        return trainer_class

    class SampledTrainer(trainer_class):  # type: ignore[misc]  # chosen by the caller
        def _get_train_sampler(self, *_: Any) -> Any:
            return sampler

    return SampledTrainer


def _chunks(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]
