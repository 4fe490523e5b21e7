"""The order in which rows are taken, where it is not simply random."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from swebench_trainer.recipe.models import TrainTable
from swebench_trainer.training.tokens.rows import Encoded

_POOL = 16
"""Batches whose rows are sorted together: few enough that batches stay mixed."""


class LengthSampler:
    """Takes rows of like length together, in batches that follow each other at random.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of an optimizer step.
        seed: Seed of the order, which is another in every epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; accelerate calls it, after a resume too."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self._seed} {self._epoch}")  # noqa: S311  # no secret
        rows = chance.sample(range(len(self)), len(self))
        pools = _cut(rows, self._size * _POOL)
        order = [
            n for pool in pools for n in sorted(pool, key=self._lengths.__getitem__)
        ]
        *batches, last = _cut(order, self._size)
        for batch in [*chance.sample(batches, len(batches)), last]:  # it may be short
            yield from batch


def _cut(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]


def length_sampler(
    rows: Sequence[Encoded], settings: TrainTable, seed: int
) -> LengthSampler | None:
    """Rows by length, if the recipe wants that."""
    if not settings.group_by_length:
        return None
    return LengthSampler([row.length for row in rows], settings.batch_size, seed)


def with_sampler(trainer_class: type[Any], sampler: Any) -> type[Any]:
    """A trainer that takes its rows as a sampler says; `None` leaves it as it is."""
    if sampler is None:
        return trainer_class

    class Ordered(trainer_class):  # type: ignore[misc]  # chosen by the caller
        def _get_train_sampler(self, *_: Any) -> Any:
            return sampler

    return Ordered
