"""Rates with confidence intervals, and comparisons of two models."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

_Z95 = 1.959963984540054
"""97.5% quantile of the standard normal distribution."""


def wilson(resolved: int, total: int) -> tuple[float, float]:
    """95% confidence interval of a rate by Wilson's score method (Wilson, 1927).

    Unlike the usual normal interval, it stays in [0, 1] and is sound for few instances
    and for rates near 0.

    Args:
        resolved: Number of successes.
        total: Number of trials; the interval is [0, 1] for 0.

    Raises:
        ValueError: The counts are not 0 <= resolved <= total.
    """
    if not 0 <= resolved <= total:
        raise ValueError(f"{resolved} of {total} is not a rate")
    if total == 0:
        return 0.0, 1.0
    rate = resolved / total
    z2 = _Z95**2
    middle = rate + z2 / (2 * total)
    margin = _Z95 * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total**2))
    scale = 1 + z2 / total
    # At the ends the bound is exactly 0 or 1, which rounding would miss.
    low = 0.0 if resolved == 0 else (middle - margin) / scale
    high = 1.0 if resolved == total else (middle + margin) / scale
    return low, high


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Share of resolved instances.

    Attributes:
        ci95: 95% confidence interval of the rate.
    """

    resolved: int
    total: int
    rate: float
    ci95: tuple[float, float]

    @classmethod
    def of(cls, outcomes: Collection[bool]) -> Rate:
        """The rate of outcomes, at least one."""
        resolved, total = sum(outcomes), len(outcomes)
        ci95 = wilson(resolved, total)
        return Rate(resolved=resolved, total=total, rate=resolved / total, ci95=ci95)


@dataclass(frozen=True)
class PairedResult:
    """Two models on the same instances.

    Attributes:
        both: Instances that both resolve.
        only_first: Instances that only the first resolves.
        only_second: Instances that only the second resolves.
        neither: Instances that neither resolves.
        p_value: Probability of a split between `only_first` and `only_second` at
            least as uneven, if the models were equally good (exact McNemar test,
            two-sided).
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float


def paired(first: Mapping[str, bool], second: Mapping[str, bool]) -> PairedResult:
    """Compares two models on the same instances by the exact McNemar test.

    Args:
        first: Whether the first model resolves each instance, by id.
        second: The same for the second.

    Raises:
        ValueError: The instances differ.
    """
    if first.keys() != second.keys():
        raise ValueError("the two models were not run on the same instances")
    both = sum(first[id_] and second[id_] for id_ in first)
    only_first = sum(first[id_] and not second[id_] for id_ in first)
    only_second = sum(second[id_] and not first[id_] for id_ in first)
    differing = only_first + only_second
    tail = sum(math.comb(differing, n) for n in range(min(only_first, only_second) + 1))
    p_value = min(1.0, 2 * tail / 2**differing)
    neither = len(first) - both - differing
    return PairedResult(both, only_first, only_second, neither, p_value)
