"""Runs jobs side by side and gives each outcome as soon as it is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.grading.official import OWED
from swebench_trainer.types import Status


def worker_count(workers: int) -> int:
    """The number of workers that a recipe's `workers` means."""
    return workers or max(1, int(0.75 * (os.cpu_count() or 1)))


def grade_all(
    jobs: Sequence[GradeJob],
    grade_one: Callable[[GradeJob], Outcome],
    *,
    workers: int,
    retries: int,
    stop: Callable[[], None],
) -> Iterator[tuple[GradeJob, Outcome]]:
    """Grades the jobs in threads.

    Args:
        jobs: What to grade.
        grade_one: Grades one job; called from several threads.
        workers: Jobs at once; 0 means three quarters of the cores.
        retries: How often a job is graded again after a fault of the machine.
        stop: Ends what runs; called when the caller no longer wants the rest
            (it closes the iterator, or is interrupted).
    """
    executor = ThreadPoolExecutor(worker_count(workers), "grade")
    futures: dict[Future[Outcome], GradeJob] = {
        executor.submit(_grade, job, grade_one, retries): job for job in jobs
    }
    done = False
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
        done = True
    finally:
        for future in futures:
            future.cancel()
        try:
            if not done:
                stop()
        finally:
            executor.shutdown()


def _grade(
    job: GradeJob, grade_one: Callable[[GradeJob], Outcome], retries: int
) -> Outcome:
    outcome = _grade_once(job, grade_one)
    for _ in range(retries):
        if outcome.status not in OWED:
            break
        outcome = _grade_once(job, grade_one)
    return outcome


def _grade_once(job: GradeJob, grade_one: Callable[[GradeJob], Outcome]) -> Outcome:
    try:
        return grade_one(job)
    except Exception as error:  # whatever it is, it must not end the other jobs
        return Outcome(
            Status.INFRA_ERROR, {}, reason=f"{type(error).__name__}: {error}"
        )
