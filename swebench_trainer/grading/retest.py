"""Repeated runs: which candidates need them, and how they change a verdict's flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from swebench_trainer.grading.official import OWED
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.store.draw import draw_seed
from swebench_trainer.types import FLAKY, Status, Verdict

UNCONFIRMED = "unconfirmed"
"""Flag of a pass without the required number of trusted passes in repeated runs."""

PASSES_ANYTHING = "passes_anything"
"""Flag of a pass whose patch also passes tests that were changed so that they must fail."""

_LATER_FLAGS = {FLAKY, UNCONFIRMED, PASSES_ANYTHING}
"""Flags from further runs of a patch."""


def runs_owed(verdict: Verdict, table: GradeTable, seed: int) -> int:
    """How many repeated runs a candidate needs.

    Depends only on the verdict and the recipe, not on the order of candidates or the
    results of earlier repeated runs.
    """
    if verdict.status is Status.RESOLVED:
        return 0 if set(verdict.flags) - _LATER_FLAGS else table.confirmations
    if verdict.status is Status.UNRESOLVED:
        if verdict.report.get("infra_failure_reason"):  # the machine may be the cause
            return 1
        # Equal for equal patches of an instance, uniform in [0, 1).
        drawn = draw_seed(seed, verdict.instance_id, verdict.patch) / 2**48
        return int(drawn < table.retest)
    return 0


def agrees(first: Verdict, again: Verdict) -> bool:
    """Whether a repeated run agrees with the first; infrastructure failures always do."""
    return again.status is first.status or again.status in OWED


def with_retests(first: Verdict, again: Sequence[Verdict], owed: int) -> Verdict:
    """The verdict with the flags that its repeated runs add.

    Args:
        first: The verdict; its status and report stay unchanged.
        again: The repeated runs; no run follows one that contradicts.
        owed: Required number of repeated runs.
    """
    if not owed:
        return first
    flags = set(of_first_run(first).flags)
    if not all(agrees(first, verdict) for verdict in again):
        flags.add(FLAKY)
    elif first.status is Status.RESOLVED:
        confirmed = sum(v.status is Status.RESOLVED and not v.flags for v in again)
        if confirmed < owed:
            flags.add(UNCONFIRMED)
    return dataclasses.replace(first, flags=tuple(sorted(flags)))


def of_first_run(verdict: Verdict) -> Verdict:
    """The verdict without what further runs have added."""
    flags = tuple(flag for flag in verdict.flags if flag not in _LATER_FLAGS)
    return dataclasses.replace(verdict, flags=flags, strength=None)


def retest_row(first: Verdict, again: Sequence[Verdict]) -> dict[str, Any]:
    """A row of `retests.jsonl`: the repeated runs of a candidate."""
    return {
        "instance_id": first.instance_id,
        "sample": first.sample,
        "model": first.model,
        "patch": first.patch,
        "first": first.status,
        "again": [verdict.status for verdict in again],
        "flags": sorted({flag for verdict in again for flag in verdict.flags}),
        "holds": all(agrees(first, verdict) for verdict in again),
        "logs": [verdict.log for verdict in again],
    }
