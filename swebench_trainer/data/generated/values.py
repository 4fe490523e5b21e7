"""Arguments for the functions of generated modules, as Python writes them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_WORDS = (
    *("red", "blue", "oak", "elm", "fox", "owl", "tin", "sun", "ice", "sea", "map"),
    *("anna", "noon", "level", "radar", "maple", "stone", "cloud", "amber", "delta"),
)
_LETTERS = "abdelmnorst"


def _numbers(draw: Random, least: int = 0) -> list[int]:
    return [draw.randint(0, 12) for _ in range(draw.randint(least, 6))]


def _words(draw: Random) -> list[str]:
    return draw.sample(_WORDS, draw.randint(0, 5))


def _word(draw: Random) -> str:
    word = draw.choice(_WORDS)
    return draw.choice((word, word.title()))


def _repeats(draw: Random) -> list[str]:
    return draw.choices(_WORDS[:4], k=draw.randint(1, 5))


def _pairs(draw: Random) -> list[tuple[str, int]]:
    return [(word, draw.randint(0, 9)) for word in draw.sample(_WORDS, 3)]


def _table(draw: Random) -> dict[str, int]:
    return {word: draw.randint(0, 9) for word in draw.sample(_WORDS[:9], 3)}


_KINDS: dict[str, Callable[[Random], object]] = {
    "number": lambda draw: draw.randint(0, 12),
    "low": lambda draw: draw.randint(1, 5),
    "high": lambda draw: draw.randint(6, 10),
    "small": lambda draw: draw.randint(0, 4),
    "short": lambda draw: draw.randint(0, 99),
    "minutes": lambda draw: draw.randint(0, 300),
    "numbers": _numbers,
    "some numbers": lambda draw: _numbers(draw, 2),
    "letter": lambda draw: draw.choice(_LETTERS),
    "word": _word,
    "words": _words,
    "text": lambda draw: " ".join(draw.sample(_WORDS, draw.randint(2, 3))),
    "repeats": _repeats,
    "repeated": lambda draw: draw.choice(_WORDS[:4]),
    "pairs": _pairs,
    "table": _table,
}


def draw_arguments(draw: Random, kinds: tuple[str, ...]) -> str:
    """The arguments of a call; one whose kind ends in `?` may be left out."""
    wanted = [kind for kind in kinds if kind[-1] != "?" or draw.random() < 0.5]
    return ", ".join(repr(_KINDS[kind.rstrip("?")](draw)) for kind in wanted)
