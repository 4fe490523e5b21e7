"""Repeated runs: which verdicts need them, and how they change flags."""

from __future__ import annotations

import dataclasses
import random

import pytest

from swebench_trainer.grading.retest import (
    UNCONFIRMED,
    agrees,
    runs_owed,
    with_retests,
)
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import FLAKY, Status, Verdict

TABLE = GradeTable(confirmations=2, retest=0.25)


def verdict(status=Status.RESOLVED, *flags, patch="p", sample=0) -> Verdict:
    return Verdict("i-1", sample, "m", status, flags=flags, patch=patch)


def retested(first, *again, owed=2):
    return with_retests(first, again, owed).flags


PASS, FAIL, FAULT = (
    verdict(),
    verdict(Status.UNRESOLVED),
    verdict(Status.INFRA_ERROR),
)


@pytest.mark.parametrize(
    ("first", "owed"),
    [
        (PASS, 2),
        (verdict(Status.RESOLVED, FLAKY), 2),  # a killed stage that is resumed
        (verdict(Status.RESOLVED, UNCONFIRMED), 2),
        (verdict(Status.RESOLVED, "multi_marker"), 0),
        (verdict(Status.NOT_APPLIED), 0),
        (verdict(Status.NO_PATCH), 0),
        (verdict(Status.TIMEOUT), 0),
    ],
)
def test_trusted_passes_run_again(first, owed) -> None:
    assert runs_owed(first, TABLE, seed=0) == owed


def test_a_share_of_failures_runs_again_in_any_order() -> None:
    failures = [
        verdict(Status.UNRESOLVED, patch=f"{n}", sample=n % 7) for n in range(2000)
    ]
    drawn = {v.patch for v in failures if runs_owed(v, TABLE, seed=3)}
    assert len(drawn) == pytest.approx(500, abs=80)
    random.Random(1).shuffle(failures)
    flaky = [dataclasses.replace(v, flags=(FLAKY,), sample=9) for v in failures]
    assert {v.patch for v in flaky if runs_owed(v, TABLE, seed=3)} == drawn
    assert {v.patch for v in failures if runs_owed(v, TABLE, seed=4)} != drawn
    none = GradeTable(retest=0, confirmations=0)
    assert not any(runs_owed(v, none, seed=3) for v in [*failures, PASS])


def test_a_confirmed_pass_keeps_its_flags() -> None:
    assert retested(PASS, PASS, PASS) == ()
    assert retested(verdict(Status.RESOLVED, FLAKY, UNCONFIRMED), PASS, PASS) == ()


def test_a_contradicted_verdict_is_flaky() -> None:
    assert retested(PASS, PASS, FAIL) == (FLAKY,)
    assert retested(PASS, verdict(Status.TIMEOUT)) == (FLAKY,)
    assert retested(FAIL, PASS, owed=1) == (FLAKY,)
    assert retested(FAIL, FAIL, owed=1) == ()
    changed = with_retests(FAIL, [PASS], 1)
    assert (changed.status, changed.reward, changed.flaky) == (FAIL.status, 0, True)


def test_a_pass_without_confirming_runs_is_unconfirmed() -> None:
    assert retested(PASS, PASS, FAULT) == (UNCONFIRMED,)
    assert retested(PASS, PASS) == (UNCONFIRMED,)
    assert retested(PASS, PASS, verdict(Status.RESOLVED, "multi_marker")) == (
        UNCONFIRMED,
    )
    assert not with_retests(PASS, [PASS, FAULT], 2).trusted_pass
    assert retested(FAIL, FAULT, owed=1) == ()
    assert agrees(FAIL, FAULT)


def test_a_verdict_without_due_runs_keeps_its_flags() -> None:
    doubted = verdict(Status.RESOLVED, "multi_marker")
    assert with_retests(doubted, [], 0) is doubted
