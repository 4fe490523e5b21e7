"""The scheduler of every grader: the order of the jobs, the workers, second tries.

A fault of the machine is tried again at once. A deadline that passes is looked into
when gold's time is known: the same tests with many times those seconds tell a patch
that hangs from a machine that was busy.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence

from swebench_trainer.contracts import GoldRun, GradeJob, Outcome
from swebench_trainer.grading.official import OWED
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import Status

SECOND_FACTOR = 10.0
"""How many times gold's seconds a second try gets, if the recipe does not say."""

BLAME_FACTOR = 3.0
"""A patch that takes so many times gold's seconds, twice, is to blame itself."""


LOOK_AHEAD = 100
"""So many of the next jobs are told to those who prepare for them."""


def worker_count(workers: int, cores: int | None = None) -> int:
    """The number of workers that a recipe's `workers` means on so many cores."""
    return workers or max(1, int(0.75 * (cores or os.cpu_count() or 1)))


def order_by_image(jobs: Sequence[GradeJob]) -> list[GradeJob]:
    """The order of the queue: the jobs of an image back to back.

    What takes longest comes first, as far as gold tells, so that the last worker is
    not left alone with it; otherwise the given order stays.
    """
    groups: dict[str, list[GradeJob]] = defaultdict(list)
    for job in jobs:
        groups[job.instance.image or job.instance.instance_id].append(job)

    def seconds(group: list[GradeJob]) -> float:
        return max(job.gold.seconds if job.gold else 0.0 for job in group)

    ordered = sorted(groups.values(), key=seconds, reverse=True)
    return [job for group in ordered for job in group]


def grade_all(
    jobs: Sequence[GradeJob],
    grade_one: Callable[[GradeJob], Outcome],
    *,
    workers: int,
    retries: int,
    stop: Callable[[], None],
    ahead: Callable[[Sequence[GradeJob]], None] | None = None,
) -> Generator[tuple[GradeJob, Outcome], None, None]:
    """Grades the jobs in threads, in the order of `by_image`.

    Args:
        jobs: What to grade.
        grade_one: Grades one job; called from several threads. See `in_time`.
        workers: Jobs at once; 0 means three quarters of the cores.
        retries: How often a job is graded again after a fault of the machine.
        stop: Ends what runs; called when the caller no longer wants the rest
            (it closes the iterator, or is interrupted).
        ahead: Told the jobs that come next, the first `LOOK_AHEAD` of them,
            whenever a job is taken.
    """
    waiting = deque(order_by_image(jobs))
    taking = threading.Lock()
    graded: queue.SimpleQueue[tuple[GradeJob, Outcome] | BaseException]
    graded = queue.SimpleQueue()

    def take() -> GradeJob | None:
        with taking:
            job = waiting.popleft() if waiting else None
            if ahead is not None:
                ahead(list(itertools.islice(waiting, LOOK_AHEAD)))
            return job

    def work() -> None:
        try:
            while (job := take()) is not None:
                graded.put((job, _grade(job, grade_one, retries)))
        except BaseException as error:  # a mistake of ours, which must not be lost
            graded.put(error)

    count = min(worker_count(workers), len(jobs))
    threads = [threading.Thread(target=work, name="grade") for _ in range(count)]
    done = False
    try:
        for thread in threads:
            thread.start()
        for _ in range(len(jobs)):
            item = graded.get()
            if isinstance(item, BaseException):
                raise item
            yield item
        done = True
    finally:
        with taking:
            waiting.clear()
        try:
            if not done:
                stop()
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()


def with_deadlines(
    table: GradeTable, grade: Callable[[GradeJob, float], Outcome]
) -> Callable[[GradeJob], Outcome]:
    """Grades with the deadlines that the recipe sets, for `grade_all`.

    Args:
        table: Sets the deadlines.
        grade: Grades one job, whose tests may take so many seconds.
    """
    return functools.partial(_grade_in_time, table, grade)


def deadlines(table: GradeTable, gold: GoldRun | None) -> tuple[float, float | None]:
    """Seconds that the tests may take, and what they get when those have passed.

    The second is `None` where nobody knows how long the tests ought to take.
    """
    if gold is None:
        return table.timeout, None
    factor = table.timeout_factor or SECOND_FACTOR
    second = min(table.timeout, max(table.timeout_floor, factor * gold.seconds))
    return (second if table.timeout_factor else table.timeout), second


def _grade_in_time(
    table: GradeTable, grade: Callable[[GradeJob, float], Outcome], job: GradeJob
) -> Outcome:
    first, second = deadlines(table, job.gold)
    outcome = grade(job, first)
    if job.gold is None or second is None or not _tests_timed_out(outcome):
        return outcome
    outcome = grade(job, second)
    if not _tests_timed_out(outcome) or second < BLAME_FACTOR * job.gold.seconds:
        return outcome
    reason = (
        f"not done after {first:g} seconds, nor after {second:g} when run again, "
        f"where gold needs {job.gold.seconds:.1f}"
    )
    return dataclasses.replace(outcome, explained=True, reason=reason)


def _tests_timed_out(outcome: Outcome) -> bool:
    """Whether the deadline of the tests has passed, not the apply chain's."""
    return outcome.status is Status.TIMEOUT and "test" in (outcome.seconds or {})


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
