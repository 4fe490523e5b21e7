from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
from tiny import GOLD, Task

from swebench_trainer.contracts import GoldRun, GradeJob, Outcome
from swebench_trainer.grading.scheduler import (
    deadlines,
    grade_all,
    order_by_image,
    worker_count,
)
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import Status

RESOLVED = Outcome(Status.RESOLVED, {})
TABLE = GradeTable(use="any", timeout=1800, timeout_floor=60)


def never() -> None:
    raise AssertionError("stopped")


def graded_by(
    grade_one: Callable[[GradeJob], Outcome],
    jobs: Sequence[GradeJob],
    *,
    workers: int = 1,
    retries: int = 0,
    **options: Any,
) -> Generator[tuple[GradeJob, Outcome], None, None]:
    """Grade jobs without regard to deadlines; nothing may stop them by default."""
    table = TABLE.model_copy(update={"workers": workers, "retries": retries})
    options = {"stop": never, **options}
    return grade_all(jobs, table, lambda job, _: grade_one(job), **options)


def jobs_of(task: Task, count: int) -> list[GradeJob]:
    return [task.job(GOLD, name=str(number)) for number in range(count)]


def test_every_job_is_graded_once(task: Task) -> None:
    jobs = jobs_of(task, 9)
    graded = list(graded_by(lambda _: RESOLVED, jobs, workers=3))
    assert {job.log_dir for job, _ in graded} == {job.log_dir for job in jobs}
    assert len(graded) == 9


def test_outcomes_are_yielded_as_they_finish(task: Task) -> None:
    slow, quick = jobs_of(task, 2)
    gate = threading.Event()

    def grade(job: GradeJob) -> Outcome:
        if job is slow:
            assert gate.wait(5)
        return RESOLVED

    outcomes = graded_by(grade, [slow, quick], workers=2)
    assert next(outcomes)[0] is quick
    gate.set()
    assert [job for job, _ in outcomes] == [slow]


@pytest.mark.parametrize("status", [Status.INFRA_ERROR, Status.OOM])
def test_infrastructure_failures_are_retried(task: Task, status: Status) -> None:
    answers = iter([Outcome(status, {}), RESOLVED])
    jobs = jobs_of(task, 1)
    graded = graded_by(lambda _: next(answers), jobs, retries=1)
    assert [outcome for _, outcome in graded] == [RESOLVED]


def test_a_verdict_is_final(task: Task) -> None:
    answers = iter([Outcome(Status.UNRESOLVED, {}), RESOLVED])
    jobs = jobs_of(task, 1)
    graded = graded_by(lambda _: next(answers), jobs, retries=3)
    assert [outcome.status for _, outcome in graded] == [Status.UNRESOLVED]


def test_an_exception_affects_only_its_job(task: Task) -> None:
    broken, fine = jobs_of(task, 2)

    def grade(job: GradeJob) -> Outcome:
        if job is broken:
            raise OSError("no space left")
        return RESOLVED

    outcomes = graded_by(grade, [broken, fine], retries=1)
    graded = {job.log_dir: outcome for job, outcome in outcomes}
    assert graded[broken.log_dir].status is Status.INFRA_ERROR
    assert "no space left" in graded[broken.log_dir].reason
    assert graded[fine.log_dir] is RESOLVED


def loses_its_sandbox(job: GradeJob) -> Outcome:
    if job.candidate.patch == GOLD:
        raise ConnectionError("the container is gone")
    return Outcome(Status.UNRESOLVED, {})


def test_a_patch_that_alone_loses_its_sandbox_is_to_blame(task: Task) -> None:
    seen: list[GradeJob] = []

    def grade(job: GradeJob) -> Outcome:
        seen.append(job)
        return loses_its_sandbox(job)

    jobs = jobs_of(task, 1)
    ((_, outcome),) = graded_by(grade, jobs, retries=1)
    assert (outcome.status, outcome.explained) == (Status.INFRA_ERROR, True)
    assert "the container is gone; only with this patch" in outcome.reason
    assert [job.candidate.is_no_op for job in seen] == [False, False, True]
    assert seen[2].log_dir != jobs[0].log_dir
    assert not seen[2].log_dir.exists()


@pytest.mark.parametrize("status", [Status.INFRA_ERROR, Status.OOM])
def test_a_patch_is_not_to_blame_if_nothing_else_works(
    task: Task, status: Status
) -> None:
    def grade(job: GradeJob) -> Outcome:
        if job.candidate.is_no_op:
            return Outcome(status, {})
        return loses_its_sandbox(job)

    ((_, outcome),) = graded_by(grade, jobs_of(task, 1))
    assert (outcome.status, outcome.explained) == (Status.INFRA_ERROR, False)


def test_closing_stops_running_jobs_and_drops_waiting_ones(task: Task) -> None:
    stopped = threading.Event()
    seen: list[GradeJob] = []

    def grade(job: GradeJob) -> Outcome:
        seen.append(job)
        if len(seen) > 1:
            assert stopped.wait(5)
        return RESOLVED

    outcomes = graded_by(grade, jobs_of(task, 20), stop=stopped.set)
    next(outcomes)
    started = time.monotonic()
    outcomes.close()
    assert stopped.is_set()
    assert len(seen) <= 2
    assert time.monotonic() - started < 2


def test_a_failing_stop_still_waits_for_running_jobs(task: Task) -> None:
    begun, ended = threading.Event(), threading.Event()

    def grade(job: GradeJob) -> Outcome:
        if job is slow:
            begun.set()
            time.sleep(0.5)
            ended.set()
        return RESOLVED

    quick, slow = jobs_of(task, 2)
    outcomes = graded_by(grade, [quick, slow])
    next(outcomes)
    assert begun.wait(5)
    with pytest.raises(AssertionError, match="stopped"):
        outcomes.close()
    assert ended.is_set()


def test_worker_count() -> None:
    assert worker_count(5) == 5
    assert worker_count(0) >= 1
    assert worker_count(0, cores=8) == 6
    assert worker_count(0, cores=1) == 1


def of_image(task: Task, image: str, name: str, gold: float | None = None) -> GradeJob:
    instance = dataclasses.replace(task.instance, image=image)
    run = None if gold is None else GoldRun(gold)
    return dataclasses.replace(task.job(GOLD, name=name), instance=instance, gold=run)


def test_an_images_jobs_are_back_to_back_and_long_ones_come_first(task: Task) -> None:
    jobs = [
        of_image(task, "unknown", "1"),
        of_image(task, "short", "2", gold=1.0),
        of_image(task, "long", "3", gold=9.0),
        of_image(task, "other", "4"),
        of_image(task, "short", "5", gold=1.0),
        of_image(task, "long", "6", gold=9.0),
        of_image(task, "unknown", "7"),
    ]
    order = [job.log_dir.name for job in order_by_image(jobs)]
    assert order == ["3", "6", "2", "5", "1", "7", "4"]
    assert order_by_image(order_by_image(jobs)) == order_by_image(jobs)


def test_ahead_receives_the_next_jobs(task: Task) -> None:
    jobs = jobs_of(task, 4)
    received: list[list[str]] = []

    def ahead(waiting: Sequence[GradeJob]) -> None:
        received.append([job.log_dir.name for job in waiting])

    list(graded_by(lambda _: RESOLVED, jobs, ahead=ahead))
    assert received == [["1", "2", "3"], ["2", "3"], ["3"], [], []]


def test_an_internal_error_is_raised(task: Task) -> None:
    def ahead(_: object) -> None:
        raise ValueError("no such thing")

    jobs = jobs_of(task, 3)
    graded = graded_by(
        lambda _: RESOLVED, jobs, workers=2, stop=lambda: None, ahead=ahead
    )
    with pytest.raises(ValueError, match="no such thing"):
        list(graded)


@pytest.mark.parametrize(
    ("factor", "gold", "expected"),
    [
        (0, None, (1800, None)),
        (0, 2.0, (1800, 60)),  # the floor
        (0, 20.0, (1800, 200)),  # ten times gold
        (0, 500.0, (1800, 1800)),  # no more than `timeout`
        (4, None, (1800, None)),
        (4, 2.0, (60, 60)),
        (4, 100.0, (400, 400)),
        (4, 500.0, (1800, 1800)),
    ],
)
def test_deadlines(
    factor: float, gold: float | None, expected: tuple[float, float | None]
) -> None:
    table = TABLE.model_copy(update={"timeout_factor": factor})
    assert deadlines(table, None if gold is None else GoldRun(gold)) == expected


def test_a_floor_does_not_exceed_the_timeout() -> None:
    table = TABLE.model_copy(update={"timeout": 30})
    assert deadlines(table, GoldRun(1.0)) == (30, 30)


TIMED_OUT = Outcome(Status.TIMEOUT, {}, reason="not done", seconds={"test": 1.0})
NOT_APPLIED_IN_TIME = Outcome(Status.TIMEOUT, {}, seconds={"apply": 300.0})


def within(
    task: Task, gold: float | None, answers: list[Outcome]
) -> tuple[Outcome, list[float]]:
    """The outcome, and the deadlines that the runs were given."""
    given: list[float] = []
    run = iter(answers)

    def grade(_: GradeJob, seconds: float) -> Outcome:
        given.append(seconds)
        return next(run)

    job = of_image(task, "any", "job", gold)
    ((_, outcome),) = grade_all([job], TABLE, grade, stop=never)
    return outcome, given


def test_a_patch_that_hangs_twice_is_to_blame(task: Task) -> None:
    outcome, given = within(task, 2.0, [TIMED_OUT, TIMED_OUT])
    assert given == [1800, 60]
    assert outcome.status is Status.TIMEOUT
    assert outcome.explained
    assert "nor within 60 in a second run; gold needs 2.0" in outcome.reason


def test_a_timeout_on_a_busy_machine_is_not_explained(task: Task) -> None:
    outcome, given = within(task, 2.0, [TIMED_OUT, RESOLVED])
    assert given == [1800, 60]
    assert outcome is RESOLVED


def test_a_deadline_near_the_time_of_gold_explains_nothing(task: Task) -> None:
    outcome, given = within(task, 700.0, [TIMED_OUT, TIMED_OUT])
    assert given == [1800, 1800]  # less than three times gold
    assert not outcome.explained


def test_without_gold_a_timeout_is_not_investigated(task: Task) -> None:
    assert within(task, None, [TIMED_OUT]) == (TIMED_OUT, [1800])


def test_a_timeout_of_the_apply_script_is_not_investigated(task: Task) -> None:
    outcome, given = within(task, 2.0, [NOT_APPLIED_IN_TIME])
    assert (outcome, given) == (NOT_APPLIED_IN_TIME, [1800])
