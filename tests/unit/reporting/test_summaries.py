"""Summaries of stages survive their JSON, and those of older runs can be read."""

from __future__ import annotations

import json

from pydantic_core import to_jsonable_python

from swebench_trainer.answers.checks import CheckCounts
from swebench_trainer.reporting.metrics import PairedResult, Rate
from swebench_trainer.reporting.summaries import (
    Comparison,
    CurvePoint,
    EvaluationSummary,
    GradeSummary,
    ModelResult,
    SplitResult,
    SuspiciousPass,
    evaluation_summary,
    grade_summary,
)

RATE = Rate(resolved=1, total=8, rate=0.125, ci95=(0.02, 0.47))
RESULT = ModelResult(
    **vars(RATE),
    statuses={"oom": 2, "timeout": 3},
    explained_timeouts=3,
    suspicious=(SuspiciousPass("a__b-1", 0, ("multi_marker", "touches_tests")),),
)
EVALUATION = EvaluationSummary(
    splits={
        "heldout": SplitResult(
            {"base": RESULT, "sft": RESULT},
            (Comparison("base", "sft", PairedResult(1, 2, 3, 2, 0.5)),),
        )
    },
    prompt="oracle",
    context="oracle",
    answer="diff",
    model="hf",
    curve={"heldout": (CurvePoint(**vars(RATE), stage="sft", step=9, seconds=1.5),)},
    checks={"base": CheckCounts(8, 1, 2)},
)
GRADING = GradeSummary(
    candidates=8,
    statuses={"resolved": 8},
    suspicious=(SuspiciousPass("a (b) #2", 3, ("flaky",)),),
    explained_timeouts=1,
    retested=7,
    flaky=1,
    flaky_ci95=(0.1, 0.2),
)
OLD_RESULT = {
    "resolved": 1,
    "total": 8,
    "rate": 0.125,
    "ci95": [0.02, 0.47],
    "statuses": {"oom": 2, "timeout": 3},
    "explained timeouts": 3,
    "flagged": 1,
    "flags": {"multi_marker": 1, "touches_tests": 1},
    "not believed": ["a__b-1 #0 (multi_marker, touches_tests)"],
}


def as_json(value):
    return json.loads(json.dumps(value, default=to_jsonable_python))


def test_summaries_survive_their_json():
    assert evaluation_summary(as_json(EVALUATION)) == EVALUATION
    assert grade_summary(as_json(GRADING)) == GRADING
    assert evaluation_summary(None) is grade_summary(None) is None


def test_answers_are_ungraded_unless_the_patch_caused_their_timeout():
    assert RESULT.ungraded == 2


def test_an_evaluation_of_an_older_run_is_read():
    paired = {"both": 1, "only base": 2, "only sft": 3, "neither": 2, "p_value": 0.5}
    checks = {"looked at": 8, "does not apply": 1, "does not parse": 2}
    row = {
        "splits": {
            "heldout": {
                "models": {"base": OLD_RESULT, "sft": OLD_RESULT},
                "paired": {"sft against base": paired},
            }
        },
        "curve": as_json(EVALUATION)["curve"],
        "checks": {"base": checks},
        "prompt": "oracle",
        "answer": "diff",
        "model": "hf",
    }
    assert evaluation_summary(row) == EVALUATION


def test_a_grading_of_an_older_run_is_read():
    row = {
        "candidates": 8,
        "statuses": {"resolved": 8},
        "flagged": 1,
        "flags": {"flaky": 1},
        "not believed": ["a (b) #2 #3 (flaky)"],
        "explained timeouts": 1,
        "retested": 7,
        "flaky": 1,
        "flaky ci95": [0.1, 0.2],
    }
    assert grade_summary(row) == GRADING
