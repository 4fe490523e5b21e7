"""Which regions of a file to show when the whole file does not fit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

from swebench_trainer.prompts.excerpts import merge
from swebench_trainer.prompts.terms import terms

_WINDOW, _STRIDE = 30, 10
"""Lines of a region that is chosen for its terms, and between the starts of two regions."""


def regions_around(
    needed: Sequence[range], length: int, lines: int, rng: random.Random
) -> tuple[range, ...]:
    """Regions that contain the needed lines, and decoy regions elsewhere.

    The sizes of all regions come from one distribution, and the position of a needed
    line in its region is random too, so neither reveals the lines to edit.

    Args:
        needed: Ranges of line indexes that must be shown.
        length: Lines of the file.
        lines: Approximate number of lines to show.
        rng: Equal generators return regions that grow with `lines`.
    """
    merged = merge(needed, length)
    others = rng.randint(1, len(merged) + 1)
    points = [rng.randrange(length) for _ in range(others)]
    regions = [*merged, *(range(point, point) for point in points)]
    weights = [rng.uniform(0.5, 1.5) for _ in regions]
    before = [rng.random() for _ in regions]
    grown = [
        _grow(region, int(lines * weight / sum(weights)), share, length)
        for region, weight, share in zip(regions, weights, before, strict=True)
    ]
    return merge(grown, length)


def _grow(region: range, lines: int, before: float, length: int) -> range:
    """The region with context, the share `before` of it above the region."""
    extra = max(0, lines - len(region))
    start = max(0, region.start - round(extra * before))
    stop = min(length, start + len(region) + extra)
    return range(max(0, min(start, stop - len(region) - extra)), max(stop, region.stop))


ChooseRegions = Callable[[int], tuple[range, ...]]
"""Returns the regions to show for an approximate number of lines; may be empty."""


def regions_about(wanted: frozenset[str], text: Sequence[str]) -> ChooseRegions:
    """Choose the regions with the highest weight of the wanted terms.

    A term weighs more if it is on fewer lines of the file. At least one region is
    chosen, however few lines are allowed, unless the file has none of the terms.

    Args:
        wanted: Terms of the issue, as returned by `terms`.
        text: Lines of the file.
    """
    found = [wanted.intersection(terms(line)) for line in text]
    counts = Counter(chain.from_iterable(found))
    scores = [sum(1 / counts[term] for term in sorted(line)) for line in found]
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
