from __future__ import annotations

import pytest
from tiny import GOLD, Task

from swebench_trainer.grading.execution import Execution, grade_in
from swebench_trainer.grading.official import NOOP
from swebench_trainer.types import Status


@pytest.mark.parametrize(
    ("extraction", "apply_code", "reason"),
    [
        ("ok", None, "the patch was not applied after 300 seconds"),
        ("ok", 0, "not done after 7 seconds"),
        (NOOP, None, "not done after 7 seconds"),
    ],
)
def test_the_reason_names_the_limit_that_was_passed(
    task: Task, extraction: str, apply_code: int | None, reason: str
) -> None:
    job = task.job(GOLD, extraction=extraction)
    execution = Execution(apply_code, timed_out=True)
    outcome = grade_in(job, 7, lambda job, patch: execution)
    assert (outcome.status, outcome.reason) == (Status.TIMEOUT, reason)
    log = job.log_dir / "test_output.txt"  # the harness notes its own deadline there
    assert log.exists() == ("7" in reason)
