from __future__ import annotations

import threading
import time

import pytest
from tiny import GOLD, Task

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.grading.pool import grade_all, worker_count
from swebench_trainer.types import Status

RESOLVED = Outcome(Status.RESOLVED, {})


def never() -> None:
    raise AssertionError("stopped")


def jobs_of(task: Task, count: int) -> list[GradeJob]:
    return [task.job(GOLD, name=str(number)) for number in range(count)]


def test_every_job_once(task: Task) -> None:
    jobs = jobs_of(task, 9)
    graded = list(grade_all(jobs, lambda _: RESOLVED, workers=3, retries=0, stop=never))
    assert {job.log_dir for job, _ in graded} == {job.log_dir for job in jobs}
    assert len(graded) == 9


def test_outcomes_come_as_soon_as_they_are_there(task: Task) -> None:
    slow, quick = jobs_of(task, 2)
    gate = threading.Event()

    def grade(job: GradeJob) -> Outcome:
        if job is slow:
            assert gate.wait(5)
        return RESOLVED

    outcomes = grade_all([slow, quick], grade, workers=2, retries=0, stop=never)
    assert next(outcomes)[0] is quick
    gate.set()
    assert [job for job, _ in outcomes] == [slow]


@pytest.mark.parametrize("status", [Status.INFRA_ERROR, Status.OOM])
def test_faults_of_the_machine_are_tried_again(task: Task, status: Status) -> None:
    answers = iter([Outcome(status, {}), RESOLVED])
    jobs = jobs_of(task, 1)
    graded = grade_all(jobs, lambda _: next(answers), workers=1, retries=1, stop=never)
    assert [outcome for _, outcome in graded] == [RESOLVED]


def test_a_verdict_is_final(task: Task) -> None:
    answers = iter([Outcome(Status.UNRESOLVED, {}), RESOLVED])
    jobs = jobs_of(task, 1)
    graded = grade_all(jobs, lambda _: next(answers), workers=1, retries=3, stop=never)
    assert [outcome.status for _, outcome in graded] == [Status.UNRESOLVED]


def test_an_exception_is_one_jobs_outcome(task: Task) -> None:
    broken, fine = jobs_of(task, 2)

    def grade(job: GradeJob) -> Outcome:
        if job is broken:
            raise OSError("no space left")
        return RESOLVED

    graded = dict(
        (job.log_dir, outcome)
        for job, outcome in grade_all(
            [broken, fine], grade, workers=1, retries=1, stop=never
        )
    )
    assert graded[broken.log_dir].status is Status.INFRA_ERROR
    assert "no space left" in graded[broken.log_dir].reason
    assert graded[fine.log_dir] is RESOLVED


def test_closing_stops_what_runs_and_forgets_what_waits(task: Task) -> None:
    stopped = threading.Event()
    seen: list[GradeJob] = []

    def grade(job: GradeJob) -> Outcome:
        seen.append(job)
        if len(seen) > 1:
            assert stopped.wait(5)
        return RESOLVED

    outcomes = grade_all(
        jobs_of(task, 20), grade, workers=1, retries=0, stop=stopped.set
    )
    next(outcomes)
    started = time.monotonic()
    outcomes.close()
    assert stopped.is_set()
    assert len(seen) <= 2
    assert time.monotonic() - started < 2


def test_a_stop_that_fails_waits_for_what_runs(task: Task) -> None:
    begun, ended = threading.Event(), threading.Event()

    def grade(job: GradeJob) -> Outcome:
        if job is slow:
            begun.set()
            time.sleep(0.5)
            ended.set()
        return RESOLVED

    quick, slow = jobs_of(task, 2)
    outcomes = grade_all([quick, slow], grade, workers=1, retries=0, stop=never)
    next(outcomes)
    assert begun.wait(5)
    with pytest.raises(AssertionError, match="stopped"):
        outcomes.close()
    assert ended.is_set()


def test_worker_count() -> None:
    assert worker_count(5) == 5
    assert worker_count(0) >= 1
