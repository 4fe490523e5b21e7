"""Scheduler of all graders: order of jobs, worker threads, retries.

Infrastructure failures are retried at once. If they remain, but the same tests without the
patch work, the patch is to blame: it is masked, and does not stop the run. A timeout is investigated if gold's time is
known: a second run with many times that limit distinguishes a patch that hangs from a
busy machine.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import queue
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from swebench_trainer.contracts import GoldRun, GradeJob, Outcome
from swebench_trainer.grading.official import OWED
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.types import NO_OP, Status

SECOND_FACTOR = 10.0
"""Time limit of a second run, as a multiple of gold's time, unless the recipe sets it."""

BLAME_FACTOR = 3.0
"""A patch that exceeds this multiple of gold's time twice is to blame for its timeout."""

LOOK_AHEAD = 100
"""Number of upcoming jobs passed to `ahead`."""

GradeInTime = Callable[[GradeJob, float], Outcome]
"""Grades one job, whose tests may take the given number of seconds."""


def worker_count(workers: int, cores: int | None = None) -> int:
    """The number of workers for a recipe's `workers` on a machine with these cores."""
    return workers or max(1, int(0.75 * (cores or os.cpu_count() or 1)))


def order_by_image(jobs: Sequence[GradeJob]) -> list[GradeJob]:
    """Order the queue: jobs of one image back to back, the longest first.

    Starting with the longest jobs, by gold's time, keeps all workers busy until the
    end. Jobs of equal length keep their order.
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
    table: GradeTable,
    grade: GradeInTime,
    *,
    stop: Callable[[], None],
    workers: int | None = None,
    ahead: Callable[[Sequence[GradeJob]], None] = lambda _: None,
) -> Generator[tuple[GradeJob, Outcome], None, None]:
    """Grade the jobs in threads, in the order of `order_by_image`.

    Args:
        jobs: Jobs to grade.
        table: Sets the deadlines, the maximum number of retries of a job after
            infrastructure failures, and the number of workers.
        grade: Grades one job; called from several threads.
        stop: Stops the running jobs; called if the caller closes the iterator or is
            interrupted.
        workers: Number of concurrent jobs, if not the table's.
        ahead: Receives the next `LOOK_AHEAD` jobs whenever a job is taken.
    """
    waiting = deque(order_by_image(jobs))
    taking = threading.Lock()
    graded: queue.SimpleQueue[tuple[GradeJob, Outcome] | BaseException]
    graded = queue.SimpleQueue()

    def take() -> GradeJob | None:
        with taking:
            job = waiting.popleft() if waiting else None
            ahead(list(itertools.islice(waiting, LOOK_AHEAD)))
            return job

    def work() -> None:
        try:
            while (job := take()) is not None:
                graded.put((job, _grade(job, table, grade)))
        except BaseException as error:  # our own bug, to be raised in the caller
            graded.put(error)

    count = min(workers or worker_count(table.workers), len(jobs))
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


def deadlines(table: GradeTable, gold: GoldRun | None) -> tuple[float, float | None]:
    """The time limits of the first and the second run of the tests, in seconds.

    The second is `None` if gold's time is unknown.
    """
    if gold is None:
        return table.timeout, None
    factor = table.timeout_factor or SECOND_FACTOR
    second = min(table.timeout, max(table.timeout_floor, factor * gold.seconds))
    return (second if table.timeout_factor else table.timeout), second


def _grade_in_time(job: GradeJob, table: GradeTable, grade: GradeInTime) -> Outcome:
    first, second = deadlines(table, job.gold)
    outcome = grade(job, first)
    if job.gold is None or second is None or not _tests_timed_out(outcome):
        return outcome
    outcome = grade(job, second)
    if not _tests_timed_out(outcome) or second < BLAME_FACTOR * job.gold.seconds:
        return outcome
    reason = (
        f"the tests did not finish within {first:g} seconds, nor within {second:g} in "
        f"a second run; gold needs {job.gold.seconds:.1f}"
    )
    return dataclasses.replace(outcome, explained=True, reason=reason)


def _tests_timed_out(outcome: Outcome) -> bool:
    """Whether the tests timed out, not the apply script."""
    return outcome.status is Status.TIMEOUT and "test" in (outcome.seconds or {})


def _grade(job: GradeJob, table: GradeTable, grade: GradeInTime) -> Outcome:
    """Grade a job, and retry after infrastructure failures."""
    for _ in range(table.retries + 1):
        outcome = _attempt(job, lambda job: _grade_in_time(job, table, grade))
        if outcome.status not in OWED:
            return outcome
    if _is_without_result(outcome) and _works_without_patch(job, table, grade):
        reason = f"{outcome.reason}; only with this patch, so it is masked"
        return dataclasses.replace(outcome, explained=True, reason=reason)
    return outcome


def _attempt(job: GradeJob, grade: Callable[[GradeJob], Outcome]) -> Outcome:
    try:
        return grade(job)
    except Exception as error:  # any error of one job must not end the others
        reason = f"{type(error).__name__}: {error}"
        return Outcome(Status.INFRA_ERROR, {}, reason=reason)


def _is_without_result(outcome: Outcome) -> bool:
    """Whether the stage would fail for this outcome; see `require_decided`."""
    return outcome.status is Status.INFRA_ERROR and not outcome.report


def _works_without_patch(job: GradeJob, table: GradeTable, grade: GradeInTime) -> bool:
    """Run the tests of a job without its patch, to see whether the machine works.

    A patch that loses its own sandbox (by filling the disk, say) would otherwise stop
    every run of the stage.
    """
    if job.candidate.is_no_op:
        return False
    candidate = dataclasses.replace(job.candidate, patch="", extraction=NO_OP)
    with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as folder:
        control = dataclasses.replace(
            job,
            candidate=candidate,
            log_dir=Path(folder, "control"),
            repeat=time.time_ns(),  # an earlier run says nothing about the machine now
        )
        outcome = _attempt(
            control, lambda job: grade(job, deadlines(table, job.gold)[0])
        )
    return outcome.status not in OWED
