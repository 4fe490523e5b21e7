"""Which regions of a file to show when it is too long to be shown whole."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

from swebench_trainer.prompts.views import merge
from swebench_trainer.prompts.words import words

_WINDOW, _STRIDE = 30, 10
"""Lines of a region that is chosen for its words, and between the starts of two."""


def around(
    needed: Sequence[range], length: int, lines: int, draw: random.Random
) -> tuple[range, ...]:
    """Regions with the needed lines in them, and others where nothing is needed.

    The sizes of all regions are drawn alike, and where in its region a needed line
    stands is drawn too, so neither tells what is to be edited.

    Args:
        needed: What must be shown, by ranges of line indexes.
        length: Lines of the file.
        lines: How many lines to show, about.
        draw: Equal generators give regions that grow as `lines` does.
    """
    wanted = merge(needed, length)
    others = draw.randint(1, len(wanted) + 1)
    points = [draw.randrange(length) for _ in range(others)]
    regions = [*wanted, *(range(point, point) for point in points)]
    weights = [draw.uniform(0.5, 1.5) for _ in regions]
    before = [draw.random() for _ in regions]
    grown = [
        _grow(region, int(lines * weight / sum(weights)), share, length)
        for region, weight, share in zip(regions, weights, before, strict=True)
    ]
    return merge(grown, length)


def _grow(region: range, lines: int, before: float, length: int) -> range:
    """The region with context, of which the share `before` stands above it."""
    extra = max(0, lines - len(region))
    start = max(0, region.start - round(extra * before))
    stop = min(length, start + len(region) + extra)
    return range(max(0, min(start, stop - len(region) - extra)), max(stop, region.stop))


Choose = Callable[[int], tuple[range, ...]]
"""The regions to show in about so many lines; nothing where there is nothing to show."""


def about(asked: frozenset[str], text: Sequence[str]) -> Choose:
    """Chooses the regions that have most of the words that are asked for.

    The fewer lines of the file a word is in, the more it counts. One region at least is
    chosen, however few lines are allowed, unless the file has none of the words.

    Args:
        asked: Words of the issue, as `words` gives them.
        text: Lines of the file.
    """
    found = [asked.intersection(words(line)) for line in text]
    often = Counter(chain.from_iterable(found))
    scores = [sum(1 / often[word] for word in sorted(line)) for line in found]
    windows = [
        range(start, min(start + _WINDOW, len(text)))
        for start in range(0, len(text), _STRIDE)
    ]
    ranked = sorted(
        (window for window in windows if any(scores[window.start : window.stop])),
        key=lambda window: (-sum(scores[window.start : window.stop]), window.start),
    )

    def choose(lines: int) -> tuple[range, ...]:
        taken: set[int] = set()
        for window in ranked:
            new = taken.union(window)
            if len(new) <= max(lines, _WINDOW):
                taken = new
        return merge((range(line, line + 1) for line in taken), len(text))

    return choose
