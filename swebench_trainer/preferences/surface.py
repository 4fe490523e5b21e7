"""A classifier that sees only the surface of answers: lengths, blank lines, fences.

DPO learns any difference between `chosen` and `rejected`, including length and habits
of style. So a logistic regression is trained on surface features of pairs, as DPO is on
their text, and tested on other issues. If it is much better than chance, DPO may learn
style instead of correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean as mean
from typing import TYPE_CHECKING

from swebench_trainer.store.digest import digest
from swebench_trainer.types import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

FOLDS = 5
MIN_PAIRS = 20
"""With fewer pairs the accuracy means nothing."""

_RIDGE = 1.0
"""Strength of the prior towards zero weights."""


def _lines(text: str) -> list[str]:
    return text.split("\n")


FEATURES: Mapping[str, Callable[[str], float]] = {
    "characters": lambda text: log(len(text) + 1),
    "lines": lambda text: log(len(_lines(text)) + 1),
    "longest_line": lambda text: log(max(map(len, _lines(text))) + 1),
    "blank_lines": lambda text: mean(not x.strip() for x in _lines(text)),
    "comment_lines": lambda text: mean(
        x.lstrip(" \t+-").startswith(("#", "//")) for x in _lines(text)
    ),
    "whitespace": lambda text: 1 - len("".join(text.split())) / (len(text) + 1),
    "letters": lambda text: sum(map(str.isalpha, text)) / (len(text) + 1),
    "non_ascii": lambda text: 1 - len(text.encode("ascii", "ignore")) / (len(text) + 1),
    "fences": lambda text: float(text.count("```")),
    "final_newline": lambda text: float(text.endswith("\n")),
}
"""Surface features of an answer."""


@dataclass(frozen=True)
class SurfaceResult:
    """Result of the surface-only classifier.

    Attributes:
        pairs: Classified pairs, each by a classifier that has not seen its issue.
        correct: How many of them it got right; an undecided pair counts as one half.
        chosen_higher: Share of pairs in which `chosen` has the larger value, by
            feature; equal values count as one half.
    """

    pairs: int
    correct: float
    chosen_higher: Mapping[str, float]


def classify(pairs: Sequence[Pair]) -> SurfaceResult | None:
    """Cross-validates the classifier; `None` for too few pairs or only one issue.

    Pairs with only one answer are left out.
    """
    import numpy as np

    both = [pair for pair in pairs if None not in (pair.chosen, pair.rejected)]
    issues = sorted({pair.instance_id for pair in both}, key=digest)
    if len(both) < MIN_PAIRS or len(issues) < 2:
        return None
    differences = np.array([_difference(pair) for pair in both])
    fold_of = {name: place % FOLDS for place, name in enumerate(issues)}
    folds = np.array([fold_of[pair.instance_id] for pair in both])
    correct = 0.0
    for fold in range(min(FOLDS, len(issues))):
        held_out = folds == fold
        weights = _fitted(differences[~held_out])
        correct += _halves(differences[held_out] @ weights).sum()
    higher = _halves(differences).mean(axis=0)
    named = {name: round(float(x), 4) for name, x in zip(FEATURES, higher, strict=True)}
    return SurfaceResult(len(both), float(correct), named)


def _difference(pair: Pair) -> list[float]:
    chosen, rejected = pair.chosen or "", pair.rejected or ""
    return [measure(chosen) - measure(rejected) for measure in FEATURES.values()]


def _halves(values: Numbers) -> Numbers:
    """1 for each value above 0, one half for each 0, 0 below."""
    import numpy as np

    return (np.sign(np.where(abs(values) < 1e-9, 0.0, values)) + 1) / 2


def _fitted(differences: Numbers) -> Numbers:
    """Weights of a logistic regression that makes `differences @ weights` positive.

    Newton's method maximizes the log-sigmoid, as DPO does, with a ridge penalty.

    Args:
        differences: Feature differences of shape (pairs, features).
    """
    import numpy as np

    scale = np.sqrt((differences**2).mean(axis=0))
    scaled = differences / np.where(scale > 0, scale, 1.0)
    weights = np.zeros(scaled.shape[1])
    for _ in range(25):
        chance = 1 / (1 + np.exp(-np.clip(scaled @ weights, -30, 30)))
        slope = scaled.T @ (1 - chance) - _RIDGE * weights
        curve = (scaled.T * (chance * (1 - chance))) @ scaled
        step = np.linalg.solve(curve + _RIDGE * np.eye(len(weights)), slope)
        weights = weights + step
        if abs(step).max() < 1e-8:
            break
    return weights / np.where(scale > 0, scale, 1.0)
