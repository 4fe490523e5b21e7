"""The one flow of every sandbox: what is run, what is remembered, what is concluded."""

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
from swebench_trainer.grading.log import CappedLog
from swebench_trainer.grading.official import NOOP, TEST_LOG
from swebench_trainer.grading.run_candidate import conclude, grade_in
from swebench_trainer.grading.sandbox import (
    Ended,
    Evidence,
    Execution,
    Files,
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
DONE = Ended(0)


class Scripted:
    """An engine whose sandboxes do as they are told."""

    def __init__(
        self,
        applied: Ended = DONE,
        tested: Ended = DONE,
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

    def environment(self, instance: Instance) -> Mapping[str, Any]:
        return {"image": self.image}

    @contextlib.contextmanager
    def open(self, job: GradeJob, files: Files) -> Iterator[Scripted]:
        self.files = files
        self.runs.append("open")
        yield self

    def apply(self, log: CappedLog) -> Ended:
        self.runs.append("apply")
        log.write(b"error: it does not fit\n")
        if self.applied.code == 0 and self.tree:
            log.write(f"tree {self.tree}\n".encode())
        return self.applied

    def test(self, log: CappedLog, timeout: float) -> Ended:
        self.runs.append("test")
        log.write(self.log.encode())
        return self.tested

    def inspect(self) -> Evidence:
        self.runs.append("inspect")
        return self.evidence


class Notes:
    """A memory of its own: what is kept is recalled, one thread at a time."""

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
    def grade(engine: Scripted, patch: str = GOLD, **options: Any) -> Outcome:
        changes = {
            name: options.pop(name)
            for name in ("instance", "repeat")
            if name in options
        }
        job = task.job(patch, extraction=options.pop("extraction", "ok"))
        return grade_in(dataclasses.replace(job, **changes), engine, 7, **options)

    return grade


def test_a_pass_is_tested_then_looked_at(grade) -> None:
    engine = Scripted()
    outcome = grade(engine)
    assert outcome.status is Status.RESOLVED
    assert engine.runs == ["open", "apply", "test", "inspect"]
    assert set(outcome.seconds) == {"start", "apply", "test"}
    assert set(engine.files) == {
        "eval.sh",
        "tmp/patch.diff",
        "tmp/apply.sh",
        "tmp/named_paths",
    }


def test_nobody_looks_at_a_failure(grade) -> None:
    engine = Scripted(log=log_of(add="FAIL"))
    assert grade(engine).status is Status.UNRESOLVED
    assert engine.runs == ["open", "apply", "test"]


def test_no_op_applies_nothing(grade) -> None:
    engine = Scripted(log=log_of(add="FAIL"))
    assert grade(engine, "", extraction=NOOP).status is Status.UNRESOLVED
    assert engine.runs == ["open", "test"]
    assert set(engine.files) == {"eval.sh"}


@pytest.mark.parametrize(
    ("patch", "status"),
    [("", Status.NO_PATCH), (" \n", Status.NO_PATCH), ("\ud800", Status.MALFORMED)],
)
def test_what_is_no_patch_opens_no_sandbox(grade, patch: str, status: Status) -> None:
    engine = Scripted()
    assert grade(engine, patch).status is status
    assert engine.runs == []


@pytest.mark.parametrize(
    ("applied", "status", "reason"),
    [
        (Ended(REFUSED), Status.NOT_APPLIED, "error: it does not fit"),
        (Ended(NO_GIT), Status.INFRA_ERROR, "the sandbox has no git"),
        (Ended(3), Status.INFRA_ERROR, "the apply script ended with 3"),
        (
            Ended(timed_out=True),
            Status.TIMEOUT,
            "the patch was not applied after 300 seconds",
        ),
        (Ended(oom=True), Status.OOM, "no memory to apply the patch"),
        (
            Ended(),
            Status.INFRA_ERROR,
            "the sandbox ended while the patch was applied",
        ),
    ],
)
def test_without_a_patched_tree_there_are_no_tests(
    grade, applied: Ended, status: Status, reason: str
) -> None:
    engine = Scripted(applied)
    outcome = grade(engine)
    assert (outcome.status, outcome.reason) == (status, reason)
    assert engine.runs == ["open", "apply"]


def test_pro_tests_whatever_became_of_the_patch(grade, task: Task) -> None:
    pro = dataclasses.replace(task.instance, apply_mode="pro")
    failing = Scripted(Ended(REFUSED), log=log_of(add="FAIL"))
    assert grade(failing, instance=pro).status is Status.NOT_APPLIED
    believed = grade(Scripted(Ended(REFUSED)), instance=pro)
    assert (believed.status, believed.flags) == (Status.RESOLVED, ("refused_patch",))


@pytest.mark.parametrize(
    ("tested", "status"),
    [
        (Ended(timed_out=True), Status.TIMEOUT),
        (Ended(1, oom=True), Status.OOM),
        (Ended(), Status.INFRA_ERROR),
    ],
)
def test_what_the_machine_ends_is_no_label(
    grade, task: Task, tested: Ended, status: Status
) -> None:
    outcome = grade(Scripted(tested=tested, log="nothing yet\n"))
    assert outcome.status is status
    log = (task.job("").log_dir / TEST_LOG).read_text()
    deadline = "\n\nTimeout error: 7 seconds exceeded."
    assert log.endswith(deadline) == (status is Status.TIMEOUT)


def test_a_full_disk_is_no_label(grade) -> None:
    full = log_of(add="FAIL").replace(
        "FAIL\n", "FAIL\nOSError: [Errno 28] No space left on device\n"
    )
    notes = Notes()
    assert grade(Scripted(log=full), run_cache=notes).status is Status.INFRA_ERROR
    assert notes.kept == {}


def test_equal_trees_that_hang_do_not_wait_for_each_other(task: Task) -> None:
    """Nothing is left to be recalled, so the others need not queue for it."""
    turns, together = itertools.count(), threading.Barrier(3)

    class Hanging(Scripted):
        def test(self, log: CappedLog, timeout: float) -> Ended:
            if next(turns):
                together.wait(20)
            while self.runs.count("apply") < 4:
                time.sleep(0.01)
            time.sleep(0.3)  # until the others queue
            return super().test(log, timeout)

    engine, notes = Hanging(tested=Ended(timed_out=True)), SqliteRunCache(None)
    jobs = [task.job(f"fix {n}\n{GOLD}", name=str(n)) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(grade_in, job, engine, 7, run_cache=notes) for job in jobs]
        assert {d.result().status for d in done} == {Status.TIMEOUT}
    notes.close()


def test_a_second_run_of_a_patch_is_recalled(grade) -> None:
    notes, engine = Notes(), Scripted()
    first = grade(engine, run_cache=notes)
    again = grade(engine, run_cache=notes)
    assert (first.answered_by, again.answered_by) == ("run", "cache")
    assert again.report == first.report
    assert engine.runs.count("open") == 1


def test_another_patch_that_leaves_the_same_files_is_not_tested(grade) -> None:
    notes, engine = Notes(), Scripted()
    grade(engine, run_cache=notes)
    again = grade(engine, f"A fix:\n{GOLD}", run_cache=notes)
    assert (again.status, again.answered_by) == (Status.RESOLVED, "tree")
    assert engine.runs.count("test") == 1
    assert grade(engine, f"A fix:\n{GOLD}", run_cache=notes).answered_by == "cache"
    grade(engine, f"My fix:\n{GOLD}", run_cache=notes, same_tree=False)
    assert engine.runs.count("test") == 2


def test_an_unnamed_tree_shares_nothing(grade) -> None:
    notes, engine = Notes(), Scripted(tree="")
    grade(engine, run_cache=notes)
    grade(engine, f"A fix:\n{GOLD}", run_cache=notes)
    assert engine.runs.count("test") == 2


def test_what_decides_a_run_is_in_its_key(grade, task: Task) -> None:
    notes, engine = Notes(), Scripted(tree="")
    script = task.instance.eval_script.replace("git status", "git  status")
    grade(engine, run_cache=notes)
    others: list[dict[str, Any]] = [
        {"patch": WRONG},
        {"repeat": 1},
        {"instance": dataclasses.replace(task.instance, eval_script=script)},
        {"instance": dataclasses.replace(task.instance, workdir="/app")},
        {"instance": dataclasses.replace(task.instance, apply_mode="pro")},
    ]
    for other in others:
        assert grade(engine, run_cache=notes, **other).answered_by == "run", other
    engine.image = "sha256:2"
    assert grade(engine, run_cache=notes).answered_by == "run"


def test_a_verdict_is_derived_anew_from_what_was_kept(grade, task: Task) -> None:
    """The list of tests is no part of the key: the log answers for any."""
    notes, engine = Notes(), Scripted(log=log_of(double="FAIL"))
    assert grade(engine, run_cache=notes).status is Status.UNRESOLVED
    easier = dataclasses.replace(task.instance, PASS_TO_PASS=())
    # It passes now, but nobody has looked into its sandbox: it is run again.
    assert grade(engine, run_cache=notes, instance=easier).answered_by == "run"
    assert grade(engine, run_cache=notes, instance=easier).answered_by == "cache"
    assert engine.runs.count("open") == 2


@pytest.mark.parametrize(
    "engine",
    [
        Scripted(tested=Ended(timed_out=True)),
        Scripted(tested=Ended(1, oom=True), log="\n"),
        Scripted(tested=Ended()),
        Scripted(log="Cannot allocate memory\n"),
    ],
)
def test_faults_of_the_machine_are_not_remembered(grade, engine: Scripted) -> None:
    notes = Notes()
    grade(engine, run_cache=notes)
    assert notes.kept == {}


def test_a_run_that_took_longer_than_now_allowed_is_made_again(
    grade, task: Task
) -> None:
    notes, engine = Notes(), Scripted()
    grade(engine, run_cache=notes)
    slow = {
        key: (dataclasses.replace(execution, seconds={"test": 8.0}), log)
        for key, (execution, log) in notes.kept.items()
    }
    notes.kept = slow
    engine.applied = Ended(REFUSED)
    again = grade(engine, run_cache=notes)
    assert (again.status, again.answered_by) == (Status.NOT_APPLIED, "run")
    assert not (task.job("").log_dir / TEST_LOG).exists(), (
        "of the run that is not taken"
    )


def test_a_run_can_be_concluded_from_its_files(grade, task: Task) -> None:
    outcome = grade(Scripted())
    job = task.job(GOLD)
    execution = read_execution(job.log_dir)
    assert execution is not None and execution.evidence == Evidence()
    assert conclude(job, 7, execution) == dataclasses.replace(outcome, seconds=None)
    seen = dataclasses.replace(execution, evidence=Evidence(("/bin/sh",), False))
    write_execution(seen, job.log_dir)
    assert read_execution(job.log_dir) == seen


def test_a_path_out_of_the_repository_names_no_tree(grade) -> None:
    engine = Scripted()
    grade(engine, GOLD + tiny.diff("../x.py", None, "1\n"))
    assert "tmp/named_paths" not in engine.files
