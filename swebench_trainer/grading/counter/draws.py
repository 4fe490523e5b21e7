"""A seeded sequence of draws, which chooses among the changes of a test."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TypeVar

from swebench_trainer.store.draw import draw_index

T = TypeVar("T")


class Draws:
    """A sequence of choices determined by its seed.

    It does not use `random`, whose sequences may differ between Python versions.
    """

    def __init__(self, *seed: object) -> None:
        self._seed = [str(part) for part in seed]
        self._count = 0

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        self._count += 1
        return draw_index(limit, *self._seed, self._count)

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in another order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in items]

    def word(self, length: int) -> str:
        """Lowercase letters, alternately a consonant and a vowel."""
        vowels = "aeiou"
        consonants = "".join(c for c in string.ascii_lowercase if c not in vowels)
        return "".join(
            self.choice(vowels if at % 2 else consonants) for at in range(length)
        )
