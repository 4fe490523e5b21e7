"""The flow of a candidate in a scripted sandbox: runs, caching, outcomes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny import ADD, DOUBLE, GOLD, WRONG, Task

from swebench_trainer.contracts import GradeJob, Outcome
from swebench_trainer.grading.apply import NO_GIT, REFUSED
from swebench_trainer.grading.cache import SqliteRunCache
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.official import NOOP, TEST_LOG
from swebench_trainer.grading.outcome import derive_outcome
from swebench_trainer.grading.run_candidate import CandidateRun, without_cleanup
from swebench_trainer.grading.sandbox import (
    CommandResult,
    Evidence,
    Execution,
    Files,
    TestFiles,
    read_execution,
    write_execution,
)
from swebench_trainer.types import Instance, Status


def log_of(**statuses: str) -> str:
    tests = {ADD: statuses.get("add", "ok"), DOUBLE: statuses.get("double", "ok")}
    lines = "".join(f"{name} ... {status}\n" for name, status in tests.items())
    code = 0 if set(tests.values()) == {"ok"} else 1
    return (
        f"+ : '>>>>> Start Test Output'\n{lines}+ SWEBENCH_TEST_EXIT_CODE={code}\n"
        f"+ : '>>>>> Test Exit Code: {code}'\n+ : '>>>>> End Test Output'\n"
    )


TREE = f"{'a' * 40} {'b' * 40} {'c' * 40}"
DONE = CommandResult(0)


class Scripted:
    """A factory of sandboxes with scripted results."""

    def __init__(
        self,
        applied: CommandResult = DONE,
        tested: CommandResult = DONE,
        log: str = "",
        tree: str = TREE,
    ) -> None:
        self.applied, self.tested = applied, tested
        self.log = log or log_of()
        self.tree = tree
        self.image = "sha256:1"
        self.runs: list[str] = []
        self.evidence = Evidence()
        self.files: Files = {}
        self.watched = TestFiles()

    def environment(self, instance: Instance) -> Mapping[str, Any]:
        return {"image": self.image}

    @contextlib.contextmanager
    def open(self, job: GradeJob, files: Files) -> Iterator[Scripted]:
        self.files = files
        self.runs.append("open")
        yield self

    def apply(self, log: CappedLog) -> CommandResult:
        self.runs.append("apply")
        log.write(b"error: it does not fit\n")
        if self.applied.code == 0 and self.tree:
            log.write(f"tree {self.tree}\n".encode())
        return self.applied

    def test(self, log: CappedLog, timeout: float) -> CommandResult:
        self.runs.append("test")
        log.write(self.log.encode())
        return self.tested

    def inspect(self, tests: TestFiles) -> Evidence:
        self.watched = tests
        self.runs.append("inspect")
        return self.evidence


class MemoryCache:
    """An in-memory run cache that admits one thread at a time."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Execution, str]] = {}
        self._lock = threading.Lock()

    def get(self, key: str, log_dir: Path) -> Execution | None:
        if key not in self.kept:
            return None
        execution, log = self.kept[key]
        (log_dir / TEST_LOG).write_text(log)
        return execution

    def put(
        self, keys: Sequence[str], execution: Execution, log_dir: Path, about: str
    ) -> None:
        path = log_dir / TEST_LOG
        log = path.read_text() if path.exists() else ""
        self.kept.update(dict.fromkeys(keys, (execution, log)))

    @contextlib.contextmanager
    def single_flight(self, key: str) -> Iterator[bool]:
        waits = self._lock.locked()
        with self._lock:
            yield waits


@pytest.fixture
def grade(task: Task):
    def grade(factory: Scripted, patch: str = GOLD, **options: Any) -> Outcome:
        changes = {
            name: options.pop(name)
            for name in ("instance", "repeat")
            if name in options
        }
        job = task.job(patch, extraction=options.pop("extraction", "ok"))
        job = dataclasses.replace(job, **changes)
        return CandidateRun(job, factory, 7, **options).outcome()

    return grade


def test_a_sandbox_is_inspected_after_a_pass(grade) -> None:
    factory = Scripted()
    outcome = grade(factory)
    assert outcome.status is Status.RESOLVED
    assert factory.runs == ["open", "apply", "test", "inspect"]
    assert set(outcome.seconds) == {"start", "apply", "test"}
    assert set(factory.files) == {
        "eval.sh",
        "tmp/patch.diff",
        "tmp/apply.sh",
        "tmp/named_paths",
    }


def test_a_sandbox_is_not_inspected_after_a_failure(grade) -> None:
    factory = Scripted(log=log_of(add="FAIL"))
    assert grade(factory).status is Status.UNRESOLVED
    assert factory.runs == ["open", "apply", "test"]


def test_no_op_applies_nothing(grade) -> None:
    factory = Scripted(log=log_of(add="FAIL"))
    assert grade(factory, "", extraction=NOOP).status is Status.UNRESOLVED
    assert factory.runs == ["open", "test"]
    assert set(factory.files) == {"eval.sh"}


@pytest.mark.parametrize(
    ("patch", "status"),
    [("", Status.NO_PATCH), (" \n", Status.NO_PATCH), ("\ud800", Status.MALFORMED)],
)
def test_a_candidate_without_a_usable_patch_opens_no_sandbox(
    grade, patch: str, status: Status
) -> None:
    factory = Scripted()
    assert grade(factory, patch).status is status
    assert factory.runs == []


@pytest.mark.parametrize(
    ("applied", "status", "reason"),
    [
        (CommandResult(REFUSED), Status.NOT_APPLIED, "error: it does not fit"),
        (CommandResult(NO_GIT), Status.INFRA_ERROR, "git"),
        (CommandResult(3), Status.INFRA_ERROR, "3"),
        (CommandResult(timed_out=True), Status.TIMEOUT, "300 seconds"),
        (CommandResult(oom=True), Status.OOM, "memory"),
        (CommandResult(), Status.INFRA_ERROR, "died"),
    ],
)
def test_without_a_patched_tree_no_tests_run(
    grade, applied: CommandResult, status: Status, reason: str
) -> None:
    factory = Scripted(applied)
    outcome = grade(factory)
    assert outcome.status is status
    assert reason in outcome.reason
    assert factory.runs == ["open", "apply"]


def test_pro_runs_the_tests_even_if_the_patch_is_refused(grade, task: Task) -> None:
    pro = dataclasses.replace(task.instance, apply_mode="pro")
    failing = Scripted(CommandResult(REFUSED), log=log_of(add="FAIL"))
    assert grade(failing, instance=pro).status is Status.NOT_APPLIED
    believed = grade(Scripted(CommandResult(REFUSED)), instance=pro)
    assert (believed.status, believed.flags) == (Status.RESOLVED, ("refused_patch",))


@pytest.mark.parametrize(
    ("tested", "status"),
    [
        (CommandResult(timed_out=True), Status.TIMEOUT),
        (CommandResult(1, oom=True), Status.OOM),
        (CommandResult(), Status.INFRA_ERROR),
    ],
)
def test_a_run_ended_by_the_machine_gives_no_label(
    grade, task: Task, tested: CommandResult, status: Status
) -> None:
    outcome = grade(Scripted(tested=tested, log="nothing yet\n"))
    assert outcome.status is status
    log = (task.job("").log_dir / TEST_LOG).read_text()
    deadline = "\n\nTimeout error: 7 seconds exceeded."
    assert log.endswith(deadline) == (status is Status.TIMEOUT)


def test_a_full_disk_gives_no_label(grade) -> None:
    full = log_of(add="FAIL").replace(
        "FAIL\n", "FAIL\nOSError: [Errno 28] No space left on device\n"
    )
    notes = MemoryCache()
    assert grade(Scripted(log=full), run_cache=notes).status is Status.INFRA_ERROR
    assert notes.kept == {}


def test_equal_trees_that_hang_do_not_wait_for_each_other(task: Task) -> None:
    """A run that hangs is not cached, so waiting for it is pointless."""
    turns, together = itertools.count(), threading.Barrier(3)

    class Hanging(Scripted):
        def test(self, log: CappedLog, timeout: float) -> CommandResult:
            if next(turns):
                together.wait(20)
            while self.runs.count("apply") < 4:
                time.sleep(0.01)
            time.sleep(0.3)  # until the others queue
            return super().test(log, timeout)

    factory, notes = Hanging(tested=CommandResult(timed_out=True)), SqliteRunCache(None)
    jobs = [task.job(f"fix {n}\n{GOLD}", name=str(n)) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = [
            pool.submit(CandidateRun(job, factory, 7, notes).outcome) for job in jobs
        ]
        assert {d.result().status for d in done} == {Status.TIMEOUT}
    notes.close()


def test_a_second_run_of_a_patch_comes_from_the_cache(grade) -> None:
    notes, factory = MemoryCache(), Scripted()
    first = grade(factory, run_cache=notes)
    again = grade(factory, run_cache=notes)
    assert (first.answered_by, again.answered_by) == ("run", "cache")
    assert again.report == first.report
    assert factory.runs.count("open") == 1


def test_a_patch_that_produces_the_same_files_shares_the_run(grade) -> None:
    notes, factory = MemoryCache(), Scripted()
    grade(factory, run_cache=notes)
    again = grade(factory, f"A fix:\n{GOLD}", run_cache=notes)
    assert (again.status, again.answered_by) == (Status.RESOLVED, "tree")
    assert factory.runs.count("test") == 1
    assert grade(factory, f"A fix:\n{GOLD}", run_cache=notes).answered_by == "cache"
    grade(factory, f"My fix:\n{GOLD}", run_cache=notes, same_tree=False)
    assert factory.runs.count("test") == 2


def test_without_a_tree_id_no_run_is_shared(grade) -> None:
    notes, factory = MemoryCache(), Scripted(tree="")
    grade(factory, run_cache=notes)
    grade(factory, f"A fix:\n{GOLD}", run_cache=notes)
    assert factory.runs.count("test") == 2


def test_the_cache_key_covers_everything_that_determines_a_run(
    grade, task: Task
) -> None:
    notes, factory = MemoryCache(), Scripted(tree="")
    script = task.instance.eval_script.replace("git status", "git  status")
    grade(factory, run_cache=notes)
    others: list[dict[str, Any]] = [
        {"patch": WRONG},
        {"repeat": 1},
        {"instance": dataclasses.replace(task.instance, eval_script=script)},
        {"instance": dataclasses.replace(task.instance, workdir="/app")},
        {"instance": dataclasses.replace(task.instance, apply_mode="pro")},
    ]
    for other in others:
        assert grade(factory, run_cache=notes, **other).answered_by == "run", other
    factory.image = "sha256:2"
    assert grade(factory, run_cache=notes).answered_by == "run"


def test_a_cached_run_is_judged_by_the_current_list_of_tests(grade, task: Task) -> None:
    """The list of tests is not part of the key, because the log covers every test."""
    notes, factory = MemoryCache(), Scripted(log=log_of(double="FAIL"))
    assert grade(factory, run_cache=notes).status is Status.UNRESOLVED
    easier = dataclasses.replace(task.instance, PASS_TO_PASS=())
    # It passes now, but its sandbox was not inspected, so it runs again.
    assert grade(factory, run_cache=notes, instance=easier).answered_by == "run"
    assert grade(factory, run_cache=notes, instance=easier).answered_by == "cache"
    assert factory.runs.count("open") == 2


@pytest.mark.parametrize(
    "factory",
    [
        Scripted(tested=CommandResult(timed_out=True)),
        Scripted(tested=CommandResult(1, oom=True), log="\n"),
        Scripted(tested=CommandResult()),
        Scripted(log="Cannot allocate memory\n"),
    ],
)
def test_infrastructure_failures_are_not_cached(grade, factory: Scripted) -> None:
    notes = MemoryCache()
    grade(factory, run_cache=notes)
    assert notes.kept == {}


def test_a_cached_run_longer_than_the_timeout_is_repeated(grade, task: Task) -> None:
    notes, factory = MemoryCache(), Scripted()
    grade(factory, run_cache=notes)
    slow = {
        key: (dataclasses.replace(execution, seconds={"test": 8.0}), log)
        for key, (execution, log) in notes.kept.items()
    }
    notes.kept = slow
    factory.applied = CommandResult(REFUSED)
    again = grade(factory, run_cache=notes)
    assert (again.status, again.answered_by) == (Status.NOT_APPLIED, "run")
    assert not (task.job("").log_dir / TEST_LOG).exists(), (
        "the log of the rejected cached run"
    )


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        ("a\n: '>>>>> End Test Output'\ngit checkout 12ab t/x.py\nrm -f y.py\n", 2),
        ("a\n: '>>>>> End Test Output'\necho '>>>>> Test Exit Code: 0'\nrm x", 3),
        ("a\nrm -f x\n: '>>>>> End Test Output'\n", 3),
        ("a\n: '>>>>> End Test Output'\nrm $(echo x)\n", 3),
        ("a\nrm -f x\n", 2),
        ("git checkout x", 1),
    ],
)
def test_only_plain_commands_after_the_last_marker_are_left_out(
    script: str, kept: int
) -> None:
    lines = script.splitlines(keepends=True)
    assert without_cleanup(script) == "".join(lines[:kept])


def test_official_test_files_are_inspected(grade, task: Task) -> None:
    before = time.time_ns()
    factory = Scripted()
    grade(factory)
    assert factory.watched.paths == ["test_calc.py"]
    assert before <= factory.watched.since <= time.time_ns()
    assert not factory.files["eval.sh"].endswith(b"rm -f test_calc.py\n")


def test_the_outcome_can_be_derived_from_the_files_of_a_run(grade, task: Task) -> None:
    outcome = grade(Scripted())
    job = task.job(GOLD)
    execution = read_execution(job.log_dir)
    assert execution is not None and execution.evidence == Evidence()
    assert derive_outcome(job, 7, execution) == dataclasses.replace(
        outcome, seconds=None
    )
    seen = dataclasses.replace(execution, evidence=Evidence(("/bin/sh",), False))
    write_execution(seen, job.log_dir)
    assert read_execution(job.log_dir) == seen


def test_a_patch_with_a_path_outside_the_repository_gets_no_tree_id(grade) -> None:
    factory = Scripted()
    grade(factory, GOLD + tiny.diff("../x.py", None, "1\n"))
    assert "tmp/named_paths" not in factory.files
