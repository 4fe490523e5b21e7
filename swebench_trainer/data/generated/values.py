"""Random arguments for generated functions, as Python literals."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_WORDS = (
    *("red", "blue", "oak", "elm", "fox", "owl", "tin", "sun", "ice", "sea", "map"),
    *("anna", "noon", "level", "radar", "maple", "stone", "cloud", "amber", "delta"),
)
_LETTERS = "abdelmnorst"


def _numbers(rng: Random, least: int = 0) -> list[int]:
    return [rng.randint(0, 12) for _ in range(rng.randint(least, 6))]


def _words(rng: Random) -> list[str]:
    return rng.sample(_WORDS, rng.randint(0, 5))


def _word(rng: Random) -> str:
    word = rng.choice(_WORDS)
    return rng.choice((word, word.title()))


def _repeats(rng: Random) -> list[str]:
    return rng.choices(_WORDS[:4], k=rng.randint(1, 5))


def _pairs(rng: Random) -> list[tuple[str, int]]:
    return [(word, rng.randint(0, 9)) for word in rng.sample(_WORDS, 3)]


def _table(rng: Random) -> dict[str, int]:
    return {word: rng.randint(0, 9) for word in rng.sample(_WORDS[:9], 3)}


_KINDS: dict[str, Callable[[Random], object]] = {
    "number": lambda rng: rng.randint(0, 12),
    "low": lambda rng: rng.randint(1, 5),
    "high": lambda rng: rng.randint(6, 10),
    "small": lambda rng: rng.randint(0, 4),
    "short": lambda rng: rng.randint(0, 99),
    "minutes": lambda rng: rng.randint(0, 300),
    "numbers": _numbers,
    "some numbers": lambda rng: _numbers(rng, 2),
    "letter": lambda rng: rng.choice(_LETTERS),
    "word": _word,
    "words": _words,
    "text": lambda rng: " ".join(rng.sample(_WORDS, rng.randint(2, 3))),
    "repeats": _repeats,
    "repeated": lambda rng: rng.choice(_WORDS[:4]),
    "pairs": _pairs,
    "table": _table,
}


def draw_arguments(rng: Random, kinds: tuple[str, ...]) -> str:
    """The arguments of a call; kinds that end in `?` are optional."""
    wanted = [kind for kind in kinds if kind[-1] != "?" or rng.random() < 0.5]
    return ", ".join(repr(_KINDS[kind.rstrip("?")](rng)) for kind in wanted)
