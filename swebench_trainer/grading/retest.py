"""Which candidates run again, and what becomes of a verdict that does not hold."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from swebench_trainer.grading.official import OWED
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import FLAKY, Status, Verdict

UNCONFIRMED = "unconfirmed"
"""Flag of a pass that should have been one again, trusted and all, but was not seen to be."""

_OURS = {FLAKY, UNCONFIRMED}


def runs_owed(verdict: Verdict, table: GradeTable, seed: int) -> int:
    """How often a candidate is to run again.

    It depends on the patch and on what is in the recipe alone: not on the order of
    the candidates, and not on what earlier repeated runs have said.
    """
    if verdict.status is Status.RESOLVED:
        return 0 if set(verdict.flags) - _OURS else table.confirmations
    if verdict.status is Status.UNRESOLVED:
        if verdict.report.get("infra_failure_reason"):  # it may be the machine's doing
            return 1
        return int(_drawn(verdict, seed) < table.retest)
    return 0


def holds(first: Verdict, again: Verdict) -> bool:
    """Whether a repeated run does not contradict; a fault of the machine never does."""
    return again.status is first.status or again.status in OWED


def with_retests(first: Verdict, again: Sequence[Verdict], owed: int) -> Verdict:
    """The verdict with what `owed` repeated runs have added to its flags.

    Args:
        first: The verdict; its status and its report stay.
        again: The repeated runs, of which a contradiction is the last.
        owed: How many there should be.
    """
    if not owed:
        return first
    flags = set(without_retest_flags(first).flags)
    if not all(holds(first, verdict) for verdict in again):
        flags.add(FLAKY)
    elif first.status is Status.RESOLVED:
        confirmed = sum(v.status is Status.RESOLVED and not v.flags for v in again)
        if confirmed < owed:
            flags.add(UNCONFIRMED)
    return dataclasses.replace(first, flags=tuple(sorted(flags)))


def without_retest_flags(verdict: Verdict) -> Verdict:
    """The verdict as its own run gave it."""
    flags = tuple(flag for flag in verdict.flags if flag not in _OURS)
    return dataclasses.replace(verdict, flags=flags)


def retest_row(first: Verdict, again: Sequence[Verdict]) -> dict[str, Any]:
    """What a candidate's repeated runs said, for people who look into it."""
    return {
        "instance_id": first.instance_id,
        "sample": first.sample,
        "model": first.model,
        "patch": first.patch,
        "first": first.status,
        "again": [verdict.status for verdict in again],
        "flags": sorted({flag for verdict in again for flag in verdict.flags}),
        "holds": all(holds(first, verdict) for verdict in again),
        "logs": [verdict.log for verdict in again],
    }


def _drawn(verdict: Verdict, seed: int) -> float:
    """A number from 0 to 1 that equal patches of an instance share."""
    name = f"{seed}/{verdict.instance_id}/{verdict.patch}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:6], "big") / 2**48
