"""Directories that the version before `format = 2` wrote can still be read.

`tests/fixtures/format_1` holds a finished run and a `grade --out` directory of
that version. Their weights are left out.
"""

import json
import shutil

import pytest

from swebench_trainer.commands.regrade import regrade
from swebench_trainer.errors import PrerequisiteError, StageError
from swebench_trainer.grading.namespace.grader import repository_view

from .conftest import QUICKSTART, ROOT

OLD = ROOT / "tests/fixtures/format_1"
TASKS = ("quickstart__foldline-1", "quickstart__foldline-2")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock.json"
    }


@pytest.fixture
def old(shell):
    """A shell with copies of the old directories, under `runs/small` and `graded`."""
    shutil.copytree(OLD / "run", shell.folder / "runs/small")
    shutil.copytree(OLD / "graded", shell.folder / "graded")
    return shell


def test_report_shows_an_old_run(old):
    out = " ".join(old.run("report", "runs/small").replace("│", " ").split())
    assert "train base 0 of 2 0.0%" in out
    assert "sft loss" in out and "dpo margin" in out


def test_regrade_confirms_the_verdicts_of_an_old_run(old):
    before = contents(old.folder / "runs/small")
    summary = regrade(old.folder / "runs/small", dry_run=False)
    assert summary.changes == () and summary.reruns == ()
    assert summary.derived == 12 and summary.total > summary.derived
    assert contents(old.folder / "runs/small") == before


def demand_another_test(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["FAIL_TO_PASS"].append("a_test_that_never_ran")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_regrade_shows_changes_of_an_old_run_but_does_not_strand_its_later_stages(old):
    run = old.folder / "runs/small"
    demand_another_test(run / "stages/prepare/instances.jsonl")
    before = contents(run)
    assert regrade(run, dry_run=True).changes
    with pytest.raises(StageError, match="older version"):
        regrade(run, dry_run=False)
    assert contents(run) == before


def test_an_old_run_is_not_resumed(old):
    shutil.copy(OLD / "run/recipe.toml", old.folder / "small.toml")
    shutil.copytree(QUICKSTART, old.folder / "quickstart")
    shutil.copy(OLD / "preds.json", old.folder)
    before = contents(old.folder / "runs/small")
    out = old.run("small.toml", code=1)
    (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
    assert "runs/small has format 1" in line and "only format 2" in line
    assert contents(old.folder / "runs/small") == before
    old.run("small.toml", "--name", "second", "--until", "prepare")
    facts = json.loads((old.folder / "runs/second/run.json").read_text())
    assert facts["format"] == 2


def test_regrade_reads_an_old_grading(old):
    before = contents(old.folder / "graded")
    summary = regrade(old.folder / "graded", dry_run=False)
    assert (summary.changes, summary.total, summary.derived) == ((), 6, 4)
    assert contents(old.folder / "graded") == before


def without_reasons(verdicts):
    """The rows without the texts for people, which each version words differently.

    Old rows have no strength; without counter-runs, new ones have none either.
    """
    rows = [{"strength": None, **json.loads(row)} for row in verdicts.splitlines()]
    return [{key: row[key] for key in row if key != "reason"} for row in rows]


def test_grade_resumes_an_old_grading(old):
    try:
        repository_view()
    except PrerequisiteError as error:
        pytest.skip(error.message)
    for name in TASKS:
        shutil.copytree(QUICKSTART / "tasks" / name, old.folder / "data/tasks" / name)
    shutil.copy(QUICKSTART / "sweb.yaml", old.folder / "data")
    graded = old.folder / "graded"
    verdicts = (graded / "verdicts.jsonl").read_text()
    before = without_reasons(verdicts)
    report = (graded / "report.json").read_text()
    kept = verdicts.splitlines(keepends=True)
    (graded / "verdicts.jsonl").write_text("".join(kept[:3]))
    (graded / "report.json").unlink()
    command = ("grade", "--data", "data", "-p", str(OLD / "preds.json"), "--timeout")
    old.run(*command, "60", "--grader", "namespace", "--out", "graded")
    assert without_reasons((graded / "verdicts.jsonl").read_text()) == before
    assert (graded / "report.json").read_text() == report
    assert json.loads((graded / "fingerprint.json").read_text())["format"] == 2
    out = old.run(*command, "61", "--grader", "namespace", "--out", "graded", code=1)
    assert "timeout" in out
