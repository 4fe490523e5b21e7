"""Counter-runs: which passes have to fail which changed tests, and what follows.

The grader here runs no program: the patch is the name of a behavior, and the eval script
names the tests that were changed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest

from swebench_trainer.contracts import Outcome
from swebench_trainer.errors import StageError
from swebench_trainer.grading.counter.changes import TestChange
from swebench_trainer.grading.counter.runs import (
    MAX_TRIES,
    ROWS,
    CounterRuns,
    GradingContext,
    checked,
    rejudge_runs,
)
from swebench_trainer.store.digest import digest
from swebench_trainer.store.jsonl import read_rows
from swebench_trainer.testing import an_instance
from swebench_trainer.types import Candidate, Status, Strength, Verdict

INSTANCE = an_instance(
    patch="gold", FAIL_TO_PASS=("test_a", "test_b"), PASS_TO_PASS=("test_c",)
)
NAME = INSTANCE.instance_id

HONEST = {
    "gold": "FAILED",
    "right": "FAILED",
    "right too": "FAILED",
}
BEHAVIOR = {**HONEST, "cheat": "PASSED", "skip": "SKIPPED", "xfail": "XFAIL"}
BEHAVIOR |= {"silent": "", "crash": "ERROR"}


def change(key, *tests, strength=Strength.EXPECTATION, works=True, breaks=""):
    """A change of tests; gold does not fail them unless it works."""
    script = f"{','.join(tests)} {'works' if works else 'fails'} {breaks}"
    return TestChange(strength, tests, ("tests.py",), script, key)


ONE = change("one", "test_a")
OTHER = change("other", "test_b")
SABOTAGE = change("sabotage", "test_a", strength=Strength.SABOTAGE)
CANARY = change("canary", "test_new", strength=Strength.CANARY)


class Crash(Exception):
    """The process dies."""


class ScriptedGrader:
    """Writes the log that a patch and changed tests lead to.

    Attributes:
        ends: Statuses of runs by patch, for those whose tests do not end.
        lives: Number of jobs before it dies.
    """

    def __init__(self, ends=(), lives=1000):
        self.ends, self.lives, self.ran = dict(ends), lives, []

    def check(self, instances):
        """Everything can be graded."""

    def close(self):
        """Nothing is open."""

    def grade(self, jobs):
        for job in jobs:
            if not self.lives:
                raise Crash
            self.lives -= 1
            patch, (tests, works, *breaks) = (
                job.candidate.patch,
                job.instance.eval_script.split(),
            )
            self.ran.append((patch, job.instance.eval_script))
            if patch in self.ends:
                yield job, Outcome(self.ends[patch], {}, reason="scripted")
                continue
            failing = tests.split(",") if works == "works" else []
            lines = [f"PASSED {n}" for n in ("test_a", "test_b", "test_c")]
            lines = [line for line in lines if line.split()[1] not in failing + breaks]
            lines += [f"FAILED {name} - changed" for name in breaks]
            status = BEHAVIOR[patch]
            lines += [f"{status} {name}" for name in failing if status]
            job.log_dir.mkdir(parents=True, exist_ok=True)
            text = "\n".join(
                [">>>>> Start Test Output", *lines, ">>>>> End Test Output"]
            )
            (job.log_dir / "test_output.txt").write_text(text)
            yield job, Outcome(Status.UNRESOLVED, {"resolved": False})


def a_pass(patch, sample=0, *flags):
    candidate = Candidate(NAME, sample, "m", "text", patch)
    return candidate, Verdict(
        NAME, sample, "m", Status.RESOLVED, flags=flags, patch=digest(patch)
    )


def by_key(*names):
    """A secret that prefers the first key of the alphabet."""
    return names[-1]


@pytest.fixture
def check(tmp_path):
    def check(
        passes, changes=(ONE, OTHER), grader=None, *, rank=by_key, faults=0, part="all"
    ):
        grader = grader or ScriptedGrader()
        context = GradingContext(
            grader, [INSTANCE], lambda _: None, lambda *_: None, faults, "run"
        )
        runs = CounterRuns(tmp_path / part, context, rank, lambda _: changes)
        candidates, verdicts = zip(*passes, strict=True)
        found = runs.check(candidates, verdicts)
        return [(v.strength, *v.flags) for v in found], grader

    return check


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ("right", (Strength.EXPECTATION,)),
        ("gold", (Strength.EXPECTATION,)),
        ("cheat", (None, "passes_anything")),
        ("skip", (None, "passes_anything")),
        ("xfail", (None, "passes_anything")),
        ("silent", (None, "passes_anything")),
        ("crash", (None, "unconfirmed")),
    ],
)
def test_only_an_explicit_failure_makes_a_pass_trusted(check, patch, result):
    assert check([a_pass(patch)])[0] == [result]


@pytest.mark.parametrize("status", [Status.TIMEOUT, Status.OOM])
def test_a_counter_run_that_does_not_end_leaves_a_pass_unconfirmed(check, status):
    found, _ = check([a_pass("right")], grader=ScriptedGrader({"right": status}))
    assert found == [(None, "unconfirmed")]


@pytest.mark.parametrize(
    ("changes", "strength"),
    [
        ([change("a", "test_a", works=False), OTHER], Strength.EXPECTATION),
        ([change("a", "test_a", breaks="test_c"), OTHER], Strength.EXPECTATION),
        ([change("a", "test_a", works=False), SABOTAGE, CANARY], Strength.SABOTAGE),
        ([CANARY], Strength.CANARY),
        ([change("a", "test_a", works=False)], None),
        ([], None),
    ],
)
def test_only_changes_that_gold_fails_alone_are_used(check, changes, strength):
    assert check([a_pass("right")], changes)[0] == [(strength,)]


def test_gold_tries_a_bounded_number_of_changes(check):
    broken = [change(f"{n:02}", "test_a", works=False) for n in range(30)]
    _, grader = check([a_pass("right"), a_pass("right too", 1)], broken)
    assert 0 < len(grader.ran) <= MAX_TRIES


def test_smaller_changes_are_tried_before_more_of_the_same_size(check):
    broken = [change(f"{n:02}", "test_a", "test_b", works=False) for n in range(9)]
    assert check([a_pass("right")], [*broken, OTHER])[0] == [(Strength.EXPECTATION,)]


def test_equal_patches_share_a_run_and_other_verdicts_need_none(check):
    failed = Verdict(NAME, 7, "m", Status.UNRESOLVED, patch=digest("silent"))
    passes = [
        *(a_pass("right", sample) for sample in range(3)),
        a_pass("cheat", 3, "multi_marker"),
        (Candidate(NAME, 7, "m", "text", "silent"), failed),
    ]
    found, grader = check(passes)
    trusted = (Strength.EXPECTATION,)
    assert found == [trusted] * 3 + [(None, "multi_marker"), (None,)]
    assert [patch for patch, _ in grader.ran] == ["gold", "right"]


def test_without_a_pass_nothing_runs(check, tmp_path):
    _, grader = check([a_pass("right", 0, "tampered")])
    assert not grader.ran and not list(tmp_path.iterdir())


def test_the_secret_decides_between_changes_by_patch(check):
    secret = lambda word: lambda *names: digest([word, *names])  # noqa: E731 - shorter than two nested functions
    passes = [a_pass(f"right {n}", n) for n in range(40)]
    BEHAVIOR.update({f"right {n}": "FAILED" for n in range(40)})
    choices = [
        check(passes, rank=secret(word), part=f"{word}{turn}")[1].ran
        for word, turn in [("one", 1), ("one", 2), ("two", 1)]
    ]
    assert choices[0] == choices[1] != choices[2]
    scripts = Counter(script for patch, script in choices[0] if patch != "gold")
    assert min(scripts.values()) > 8 and len(scripts) == 2


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "timings.jsonl"
    }


def test_a_killed_check_ends_like_an_undisturbed_one(check, tmp_path):
    changes = [change("a", "test_a", works=False), OTHER, SABOTAGE]
    passes = [a_pass("right"), a_pass("cheat", 1), a_pass("right too", 2)]
    whole, grader = check(passes, changes, part="whole")
    for lives in range(len(grader.ran)):
        with pytest.raises(Crash):
            check(passes, changes, ScriptedGrader(lives=lives), part=f"{lives}")
        found, rest = check(passes, changes, part=f"{lives}")
        assert found == whole
        assert len(rest.ran) == len(grader.ran) - lives, "a run was repeated"
        assert files(tmp_path / f"{lives}") == files(tmp_path / "whole")


def test_infrastructure_failures_stop_the_stage_and_run_again(check):
    passes = [a_pass("right"), a_pass("cheat", 1)]
    broken = ScriptedGrader({"right": Status.INFRA_ERROR})
    with pytest.raises(StageError, match="1 of 2"):
        check(passes, grader=broken)
    found, grader = check(passes)
    assert found == [(Strength.EXPECTATION,), (None, "passes_anything")]
    assert [patch for patch, _ in grader.ran] == ["right"]


def test_masked_infrastructure_failures_leave_a_pass_unconfirmed(check):
    broken = ScriptedGrader({"right": Status.INFRA_ERROR})
    found, _ = check([a_pass("right")], grader=broken, faults=1)
    assert found == [(None, "unconfirmed")]


def test_results_follow_from_the_logs_again(check, tmp_path):
    passes = [a_pass("right"), a_pass("cheat", 1)]
    check(passes)
    folder, instances = tmp_path / "all", {NAME: INSTANCE}
    before = rejudge_runs(folder, instances)
    assert before.changes == 0
    runs = [before.by_patch.get((NAME, v.patch)) for _, v in passes]
    marked = [checked(v, run) for (_, v), run in zip(passes, runs, strict=True)]
    assert [v.strength for v in marked] == [Strength.EXPECTATION, None]
    row = next(r for r in read_rows(folder / ROWS) if r["patch"] == passes[0][1].patch)
    log = folder / row["log"] / "test_output.txt"
    log.write_text(log.read_text().replace("FAILED", "PASSED"))
    after = rejudge_runs(folder, instances)
    assert after.changes == 1
    passes_anything = checked(passes[0][1], after.by_patch[NAME, passes[0][1].patch])
    assert passes_anything.flags == ("passes_anything",)


def test_rows_name_the_change_and_the_result(check, tmp_path):
    check([a_pass("cheat")])
    rows = read_rows(tmp_path / "all" / ROWS)
    results = {(row["key"], row["result"], row["calibrates"]) for row in rows}
    assert results == {("one", "failed", True), ("one", "passed", False)}


def test_an_earlier_result_is_not_a_reason_to_skip_the_check(check):
    passes = [a_pass("right")]
    first, _ = check(passes)
    trusted = dataclasses.replace(passes[0][1], strength=Strength.CANARY)
    again, grader = check([(passes[0][0], trusted)])
    assert again == first and not grader.ran


def test_changes_of_another_version_are_run_again(check):
    check([a_pass("right")], [ONE])
    renamed = dataclasses.replace(ONE, key="new")
    _, grader = check([a_pass("right")], [renamed])
    assert list(itertools.chain(*grader.ran))[::2] == ["gold", "right"]
