"""What the languages have in common: places where a test can be changed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from swebench_trainer.grading.counter.draws import Draws

VARIETY = 6
"""Number of values for one place."""

_WORD = re.compile(r"[A-Z]?[a-z]{2,}")


@dataclass(frozen=True)
class Place:
    """A change of one line, or of the end of a file, that makes a test fail.

    Attributes:
        test: Identifies the test within the instance; one place per test is changed.
        names: The tests that fail then, as the log parser reports them.
        number: The line in the file after the test patch; 0 for new lines at the end.
        old: The current line.
        texts: Texts to choose from, without the newline at the end.
    """

    test: str
    path: str
    names: tuple[str, ...]
    number: int
    old: str
    texts: tuple[str, ...]


def words_of(names: Iterable[str]) -> list[str]:
    """The words in names of tests, each once."""
    return sorted({word.lower() for name in names for word in _WORD.findall(name)})


def new_words(words: list[str], draws: Draws) -> list[str]:
    """Words for the name of a new test, so that it looks like the others."""
    pool = [word for word in words if word not in ("test", "tests")]
    pool = [*pool, *(draws.word(length) for length in (4, 5, 6))]
    return draws.shuffled(pool)[:3]


def wrong_equality(draws: Draws) -> tuple[str, str]:
    """Two different literals, valid in all languages."""
    first, second = draws.below(90) + 10, draws.below(900) + 100
    if draws.below(2):
        return str(first), str(second)
    return f'"{draws.word(4)}"', f'"{draws.word(5)}"'
