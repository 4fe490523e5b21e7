"""Rates with their uncertainty: pure functions of counts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from swebench_trainer.types import Status, Verdict

_Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def wilson(resolved: int, total: int) -> tuple[float, float]:
    """95 % interval of a rate by Wilson's score method.

    It stays in [0, 1] and is sound for few instances and for rates near 0, where
    the usual normal interval is not (Wilson, 1927).

    Args:
        resolved: Number of successes.
        total: Number of trials; with none the rate can be anything.

    Raises:
        ValueError: The counts are not 0 <= resolved <= total.
    """
    if not 0 <= resolved <= total:
        raise ValueError(f"{resolved} of {total} is no rate")
    if total == 0:
        return 0.0, 1.0
    rate = resolved / total
    z2 = _Z95**2
    middle = rate + z2 / (2 * total)
    margin = _Z95 * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total**2))
    scale = 1 + z2 / total
    # At the ends the bound is 0 or 1 exactly, which rounding would miss.
    low = 0.0 if resolved == 0 else (middle - margin) / scale
    high = 1.0 if resolved == total else (middle + margin) / scale
    return low, high


@dataclass(frozen=True)
class PairedResult:
    """Two models on the same instances.

    Attributes:
        both: Instances that both resolve.
        only_a: Instances that only the first resolves.
        only_b: Instances that only the second resolves.
        neither: Instances that none resolves.
        p_value: Probability of a split of the `only` ones at least as uneven as
            this, if the models were equally good (exact McNemar, two-sided).
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float


def paired(a: Mapping[str, bool], b: Mapping[str, bool]) -> PairedResult:
    """Compares two models on the same instances by the exact McNemar test.

    Args:
        a: Whether the first model resolves each instance, by id.
        b: The same of the second.

    Raises:
        ValueError: The instances are not the same.
    """
    if a.keys() != b.keys():
        raise ValueError("the two models were not run on the same instances")
    both = sum(a[id_] and b[id_] for id_ in a)
    only_a = sum(a[id_] and not b[id_] for id_ in a)
    only_b = sum(b[id_] and not a[id_] for id_ in a)
    differing = only_a + only_b
    tail = sum(math.comb(differing, n) for n in range(min(only_a, only_b) + 1))
    p_value = min(1.0, 2 * tail / 2**differing)
    return PairedResult(both, only_a, only_b, len(a) - both - differing, p_value)


def not_believed(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """The passes that have a flag, for a `summary.json`.

    Returns:
        `flagged`, how many there are; `flags`, how often each flag is among them;
        `not_believed`, which they are: instance, number of the sample, flags.
    """
    passes = [v for v in verdicts if v.status is Status.RESOLVED and v.flags]
    return {
        "flagged": len(passes),
        "flags": dict(sorted(Counter(f for v in passes for f in v.flags).items())),
        "not_believed": [
            f"{v.instance_id} #{v.sample} ({', '.join(v.flags)})" for v in passes
        ],
    }
