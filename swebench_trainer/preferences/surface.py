"""How well a look at the surface tells `chosen` from `rejected`, without the code.

DPO learns whatever tells the two apart. Were it the length or a habit of the writer,
it would learn that. So a small judge learns as DPO does, from pairs, on numbers that
know nothing of the issue, and is asked about issues that it has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from swebench_trainer.store.digest import digest
from swebench_trainer.types import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

FOLDS = 5
LEAST = 20
"""Fewer pairs say nothing."""

_RIDGE = 1.0
"""Strength of the prior that a feature says nothing."""


def _lines(text: str) -> list[str]:
    return text.split("\n")


FEATURES: Mapping[str, Callable[[str], float]] = {
    "characters": lambda text: log(len(text) + 1),
    "lines": lambda text: log(len(_lines(text)) + 1),
    "longest line": lambda text: log(max(map(len, _lines(text))) + 1),
    "blank lines": lambda text: (
        sum(not x.strip() for x in _lines(text)) / len(_lines(text))
    ),
    "comment lines": lambda text: (
        sum(x.lstrip(" \t+-").startswith(("#", "//")) for x in _lines(text))
        / len(_lines(text))
    ),
    "white space": lambda text: 1 - len("".join(text.split())) / (len(text) + 1),
    "letters": lambda text: sum(map(str.isalpha, text)) / (len(text) + 1),
    "not ASCII": lambda text: 1 - len(text.encode("ascii", "ignore")) / (len(text) + 1),
    "fences": lambda text: float(text.count("```")),
    "ends with a newline": lambda text: float(text.endswith("\n")),
}
"""What can be seen of an answer without reading it, each as a number."""


@dataclass(frozen=True)
class Judgement:
    """What the surface gives away.

    Attributes:
        pairs: Pairs that were judged, each by a judge that has not seen its issue.
        right: In how many of them the judge preferred `chosen`; one that it cannot
            tell apart counts half.
        higher: By feature, the share of pairs in which `chosen` has the larger number,
            equal ones counting half.
    """

    pairs: int
    right: float
    higher: Mapping[str, float]


def judge(pairs: Sequence[Pair]) -> Judgement | None:
    """Judges the pairs by their surface; `None` where there are too few, or one issue.

    Answers that stand alone are left out.
    """
    import numpy as np

    both = [
        pair for pair in pairs if pair.chosen is not None and pair.rejected is not None
    ]
    issues = sorted({pair.instance_id for pair in both}, key=lambda name: digest(name))
    if len(both) < LEAST or len(issues) < 2:
        return None
    differences = np.array([_difference(pair) for pair in both])
    fold_of = {name: place % FOLDS for place, name in enumerate(issues)}
    folds = np.array([fold_of[pair.instance_id] for pair in both])
    right = 0.0
    for fold in range(min(FOLDS, len(issues))):
        held_out = folds == fold
        weights = _fitted(differences[~held_out])
        right += _halves(differences[held_out] @ weights).sum()
    higher = _halves(differences).mean(axis=0)
    named = {name: round(float(x), 4) for name, x in zip(FEATURES, higher, strict=True)}
    return Judgement(len(both), float(right), named)


def _difference(pair: Pair) -> list[float]:
    chosen, rejected = pair.chosen or "", pair.rejected or ""
    return [measure(chosen) - measure(rejected) for measure in FEATURES.values()]


def _halves(values: Numbers) -> Numbers:
    """1 where a value is above 0, one half where it is 0."""
    import numpy as np

    return (np.sign(np.where(abs(values) < 1e-9, 0.0, values)) + 1) / 2


def _fitted(differences: Numbers) -> Numbers:
    """Weights that make `weights @ difference` positive: a logistic regression of pairs.

    It maximises the log of the sigmoid, as DPO does, by Newton's method with a ridge.
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
