"""Which regions of a file to show when it is too long to be shown whole."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence, Set

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


def about(asked: Set[str], text: Sequence[str], lines: int) -> tuple[range, ...]:
    """The regions that have most of the words that are asked for.

    Args:
        asked: Words of the issue, as `words` gives them.
        text: Lines of the file.
        lines: How many lines to show at most, unless it is less than a region.

    Returns:
        Nothing if no word of the issue is in the file.
    """
    found = [asked & set(words(line)) for line in text]
    often = Counter(word for words_of_line in found for word in words_of_line)
    scores = [sum(1 / often[word] for word in line) for line in found]
    windows = [
        range(start, min(start + _WINDOW, len(text)))
        for start in range(0, len(text), _STRIDE)
    ]
    ranked = sorted(
        (-sum(scores[window.start : window.stop]), window.start, window)
        for window in windows
    )
    chosen: list[range] = []
    taken: set[int] = set()
    for score, _, window in ranked:
        new = taken.union(window)
        if score < 0 and len(new) <= max(lines, _WINDOW):
            chosen.append(window)
            taken = new
    return merge(chosen, len(text))
