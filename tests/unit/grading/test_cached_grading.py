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
from swebench_trainer.grading.run_candidate import run_candidate
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

    def grade(engine: Scripted, patch: str = GOLD, **changes: Any) -> Outcome:
        job = dataclasses.replace(task.job(patch, name=f"{next(count)}"), **changes)
        outcome = run_candidate(job, engine, 7, run_cache=run_cache)
        grade.job = job
        return outcome

    return grade


def changed(instance: Instance, **changes: Any) -> dict[str, Instance]:
    return {"instance": dataclasses.replace(instance, **changes)}


def test_an_equal_run_comes_from_the_cache_with_the_same_files(grade: Grade) -> None:
    first = grade(Scripted())
    made = grade.job.log_dir
    engine = Scripted()
    again = grade(engine)
    assert engine.runs == []
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
    engine = Scripted(tree="")
    patch, changes = GOLD, {}
    if what == "image":
        engine.image = "sha256:2"
    elif what == "limits":
        engine.environment = lambda instance: {"image": "sha256:1", "pids": 9}
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
    assert grade(engine, patch, **changes).answered_by == "run"
    assert "test" in engine.runs


def test_another_patch_with_the_same_tree_shares_the_run(grade: Grade) -> None:
    grade(Scripted())
    engine = Scripted()
    assert grade(engine, NEW_FILE).answered_by == "tree"
    assert engine.runs == ["open", "apply"]
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
    engine = Scripted()
    again = grade(engine, WRONG)
    assert (again.status, again.reason) == (Status.NOT_APPLIED, first.reason)
    assert engine.runs == []


def test_other_test_lists_and_parsers_judge_the_cached_log_again(
    grade: Grade, task: Task
) -> None:
    log = log_of(add="FAIL")
    assert grade(Scripted(log=log)).status is Status.UNRESOLVED
    easier = changed(task.instance, FAIL_TO_PASS=(DOUBLE,), PASS_TO_PASS=())
    # The sandbox of a failure was not inspected, so as a pass it runs again.
    engine = Scripted(log=log)
    assert grade(engine, **easier).status is Status.RESOLVED
    assert engine.runs == ["open", "apply", "test", "inspect"]
    engine = Scripted()
    assert grade(engine, **easier).answered_by == "cache"
    harder = changed(task.instance, FAIL_TO_PASS=(ADD, DOUBLE, "test_more (x)"))
    assert grade(engine, **harder).status is Status.UNRESOLVED
    blind = changed(task.instance, log_parser="parse_log_pytest")
    assert grade(engine, **blind).status is Status.UNRESOLVED
    assert engine.runs == []


def test_a_cached_run_above_the_timeout_runs_again(
    task: Task, run_cache: SqliteRunCache
) -> None:
    job = task.job(GOLD)
    run_candidate(job, Scripted(), 7, run_cache=run_cache)
    assert run_candidate(job, Scripted(), 7, run_cache=run_cache).answered_by == "cache"
    run_cache._database.execute(
        "UPDATE runs SET execution = json_set(execution, '$.seconds.test', 6.5)"
    )
    assert run_candidate(job, Scripted(), 7, run_cache=run_cache).answered_by == "cache"
    assert run_candidate(job, Scripted(), 6, run_cache=run_cache).answered_by == "run"


def test_a_broken_cache_does_not_affect_verdicts(
    task: Task, run_cache: SqliteRunCache, tmp_path: Path
) -> None:
    job = task.job(GOLD)
    run_candidate(job, Scripted(), 7, run_cache=run_cache)
    run_cache._database.execute("UPDATE logs SET content = x'00'")
    assert (
        run_candidate(job, Scripted(), 7, run_cache=run_cache).status is Status.RESOLVED
    )
    run_cache._database.execute("DROP TABLE keys")
    outcome = run_candidate(job, Scripted(), 7, run_cache=run_cache)
    assert (outcome.status, outcome.answered_by) == (Status.RESOLVED, "run")
    assert read_execution(job.log_dir) is not None


def test_concurrent_candidates_with_one_tree_are_tested_once(
    task: Task, run_cache: SqliteRunCache
) -> None:
    engines = [Scripted() for _ in range(4)]
    jobs: list[GradeJob] = [
        task.job(GOLD + "\n" * n, name=f"thread-{n}") for n in range(4)
    ]
    threads = [
        threading.Thread(
            target=run_candidate, args=(job, engine, 7), kwargs={"run_cache": run_cache}
        )
        for job, engine in zip(jobs, engines, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tested = [engine for engine in engines if "test" in engine.runs]
    assert len(tested) == 1
    assert all((job.log_dir / TEST_LOG).exists() for job in jobs)
