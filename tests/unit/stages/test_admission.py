"""Which instances admit refuses, and why."""

from __future__ import annotations

import dataclasses

import pytest

from swebench_trainer.errors import StageError
from swebench_trainer.hookspecs import hookimpl
from swebench_trainer.testing import FakeGrader, Trainer
from swebench_trainer.types import Status


class SilentGrader(FakeGrader):
    """Gold passes, but an expected test leaves no line in the log."""

    def _outcome(self, job):
        outcome = super()._outcome(job)
        silent = outcome.status is Status.RESOLVED
        return dataclasses.replace(outcome, flags=("no_result",) if silent else ())


class Plugin:
    @hookimpl
    def register_graders(self, register):
        register("silent", lambda table: SilentGrader(), summary="for this test")


def test_gold_needs_a_result_for_each_test_that_it_fixes(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.add(Plugin())
    with pytest.raises(
        StageError, match="a FAIL_TO_PASS test has no result in the log"
    ):
        trainer.run(grade={"use": "silent"}, until="admit")
    rows = trainer.last.rows("admit", "admission.jsonl")
    assert not any(row["admitted"] for row in rows)
