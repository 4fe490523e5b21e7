"""Grading with the run cache: hits, misses, and runs that are never cached."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_run_candidate import Scripted, log_of
from tiny import ADD, DOUBLE, GOLD, NEW_FILE, WRONG, Task

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.grading.cache import SqliteRunCache
from swebench_trainer.grading.official import APPLY_LOG, REPORT, TEST_LOG
from swebench_trainer.grading.run_candidate import CandidateRun
from swebench_trainer.grading.sandbox import CommandResult, read_execution
from swebench_trainer.types import Instance, Status

Grade = Callable[..., Outcome]


@pytest.fixture
def run_cache(tmp_path: Path):
    opened = SqliteRunCache(tmp_path / "runs.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def grade(task: Task, run_cache: SqliteRunCache) -> Grade:
    count = iter(range(100))

    def grade(factory: Scripted, patch: str = GOLD, **changes: Any) -> Outcome:
        job = dataclasses.replace(task.job(patch, name=f"{next(count)}"), **changes)
        outcome = CandidateRun(job, factory, 7, run_cache).outcome()
        grade.job = job
        return outcome

    return grade


def changed(instance: Instance, **changes: Any) -> dict[str, Instance]:
    return {"instance": dataclasses.replace(instance, **changes)}


def test_an_equal_run_comes_from_the_cache_with_the_same_files(grade: Grade) -> None:
    first = grade(Scripted())
    made = grade.job.log_dir
    factory = Scripted()
    again = grade(factory)
    assert factory.runs == []
    assert (first.answered_by, again.answered_by) == ("run", "cache")
    assert dataclasses.replace(again, answered_by="run", seconds=first.seconds) == first
    names = {path.name for path in made.iterdir()}
    assert {APPLY_LOG, TEST_LOG, REPORT, "patch.diff", "eval.sh"} < names
    for name in names:
        assert (grade.job.log_dir / name).read_bytes() == (made / name).read_bytes()


@pytest.mark.parametrize(
    "what", ["image", "limits", "eval script", "repeat", "patch", "workdir", "base"]
)
def test_a_change_of_anything_that_determines_a_run_repeats_it(
    grade: Grade, task: Task, what: str
) -> None:
    grade(Scripted(tree=""))
    factory = Scripted(tree="")
    patch, changes = GOLD, {}
    if what == "image":
        factory.image = "sha256:2"
    elif what == "limits":
        factory.environment = lambda instance: {"image": "sha256:1", "pids": 9}
    elif what == "eval script":
        changes = changed(
            task.instance,
            instance_id="tiny__calc-2",
            eval_script=task.instance.eval_script + "\ntrue\n",
        )
    elif what == "repeat":
        changes = {"repeat": 1}
    elif what == "workdir":
        changes = changed(task.instance, workdir="/app")
    elif what == "base":  # of a script that resets to it
        grade(Scripted(tree=""), **changed(task.instance, apply_mode="pro"))
        changes = changed(task.instance, apply_mode="pro", base_commit="f" * 40)
    else:
        patch = GOLD + "\n"
    assert grade(factory, patch, **changes).answered_by == "run"
    assert "test" in factory.runs


def test_another_patch_with_the_same_tree_shares_the_run(grade: Grade) -> None:
    grade(Scripted())
    factory = Scripted()
    assert grade(factory, NEW_FILE).answered_by == "tree"
    assert factory.runs == ["open", "apply"]
    assert grade(Scripted(tree=f"{'c' * 40} {'d' * 40}"), WRONG).answered_by == "run"


@pytest.mark.parametrize(
    "ended",
    [
        Scripted(tested=CommandResult(timed_out=True)),
        Scripted(tested=CommandResult(oom=True), log="Killed\n"),
        Scripted(tested=CommandResult()),
        Scripted(applied=CommandResult()),
        Scripted(applied=CommandResult(oom=True)),
        Scripted(applied=CommandResult(timed_out=True)),
    ],
)
def test_possible_infrastructure_failures_are_not_cached(
    grade: Grade, run_cache: SqliteRunCache, ended: Scripted
) -> None:
    grade(ended)
    assert run_cache.totals().runs == 0
    assert grade(Scripted()).answered_by == "run"


def test_a_refused_patch_is_cached(grade: Grade) -> None:
    first = grade(Scripted(CommandResult(10)), WRONG)
    factory = Scripted()
    again = grade(factory, WRONG)
    assert (again.status, again.reason) == (Status.NOT_APPLIED, first.reason)
    assert factory.runs == []


def test_other_test_lists_and_parsers_judge_the_cached_log_again(
    grade: Grade, task: Task
) -> None:
    log = log_of(add="FAIL")
    assert grade(Scripted(log=log)).status is Status.UNRESOLVED
    easier = changed(task.instance, FAIL_TO_PASS=(DOUBLE,), PASS_TO_PASS=())
    # The sandbox of a failure was not inspected, so as a pass it runs again.
    factory = Scripted(log=log)
    assert grade(factory, **easier).status is Status.RESOLVED
    assert factory.runs == ["open", "apply", "test", "inspect"]
    factory = Scripted()
    assert grade(factory, **easier).answered_by == "cache"
    harder = changed(task.instance, FAIL_TO_PASS=(ADD, DOUBLE, "test_more (x)"))
    assert grade(factory, **harder).status is Status.UNRESOLVED
    blind = changed(task.instance, log_parser="parse_log_pytest")
    assert grade(factory, **blind).status is Status.UNRESOLVED
    assert factory.runs == []


def test_a_cached_run_above_the_timeout_runs_again(
    task: Task, run_cache: SqliteRunCache
) -> None:
    job = task.job(GOLD)
    CandidateRun(job, Scripted(), 7, run_cache).outcome()
    assert CandidateRun(job, Scripted(), 7, run_cache).outcome().answered_by == "cache"
    run_cache._database.execute(
        "UPDATE runs SET execution = json_set(execution, '$.seconds.test', 6.5)"
    )
    assert CandidateRun(job, Scripted(), 7, run_cache).outcome().answered_by == "cache"
    assert CandidateRun(job, Scripted(), 6, run_cache).outcome().answered_by == "run"


def test_a_broken_cache_does_not_affect_verdicts(
    task: Task, run_cache: SqliteRunCache, tmp_path: Path
) -> None:
    job = task.job(GOLD)
    CandidateRun(job, Scripted(), 7, run_cache).outcome()
    run_cache._database.execute("UPDATE logs SET content = x'00'")
    assert (
        CandidateRun(job, Scripted(), 7, run_cache).outcome().status is Status.RESOLVED
    )
    run_cache._database.execute("DROP TABLE keys")
    outcome = CandidateRun(job, Scripted(), 7, run_cache).outcome()
    assert (outcome.status, outcome.answered_by) == (Status.RESOLVED, "run")
    assert read_execution(job.log_dir) is not None


def test_concurrent_candidates_with_one_tree_are_tested_once(
    task: Task, run_cache: SqliteRunCache
) -> None:
    factories = [Scripted() for _ in range(4)]
    jobs: list[GradeJob] = [
        task.job(GOLD + "\n" * n, name=f"thread-{n}") for n in range(4)
    ]
    threads = [
        threading.Thread(target=CandidateRun(job, factory, 7, run_cache).outcome)
        for job, factory in zip(jobs, factories, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tested = [factory for factory in factories if "test" in factory.runs]
    assert len(tested) == 1
    assert all((job.log_dir / TEST_LOG).exists() for job in jobs)
