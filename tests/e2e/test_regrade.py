"""Verdicts from kept logs: shown, written, and what depends on them done again."""

import json
import shutil

import pytest

from swebench_trainer.commands.regrade import regrade
from swebench_trainer.errors import DataError, PrerequisiteError, StageError
from swebench_trainer.grading.namespace.grader import repository_view
from swebench_trainer.store.digest import digest
from swebench_trainer.store.rundir import StageDir

from .conftest import QUICKSTART

IDS = ["quickstart__foldline-1", "quickstart__daytally-1"]
BAD = (
    "diff --git a/new.txt b/new.txt\nnew file mode 100644\n--- /dev/null\n"
    "+++ b/new.txt\n@@ -0,0 +1 @@\n+hello\n"
)


@pytest.fixture(scope="module", autouse=True)
def _needs_namespaces():
    try:
        repository_view()
    except PrerequisiteError as error:
        pytest.skip(error.message)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewrite(path, change):
    changed = rows(path)
    for row in changed:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))
    StageDir(path.parent).accept()


def content(folder):
    """Every file but the lock, which says who was there last."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock.json"
    }


@pytest.fixture(scope="module")
def graded_once(new_shell):
    from swebench.task.repo import load_task_repo

    shell = new_shell()
    tasks = [t for t in load_task_repo(QUICKSTART) if t["instance_id"] in IDS]
    predictions = [
        {"instance_id": t["instance_id"], "model_name_or_path": name, "model_patch": p}
        for t in tasks
        for name, p in (("gold", t["patch"]), ("bad", BAD), ("none", ""))
    ]
    (shell.folder / "preds.json").write_text(json.dumps(predictions))
    arguments = ("--data", str(QUICKSTART), "-p", "preds.json", "--grader", "namespace")
    shell.run("grade", *arguments, "--out", "out")
    again = shell.run("grade", *arguments, "--out", "again")
    assert "4 answered by the cache" in again
    without = shell.run("grade", *arguments, "--out", "without", "--no-cache")
    assert "answered by the cache" not in without
    for name in ("verdicts.jsonl", "report.json"):
        texts = {
            (shell.folder / out / name).read_text()
            for out in ("out", "again", "without")
        }
        assert len(texts) == 1
    return shell


@pytest.fixture
def graded(graded_once, shell):
    shutil.copytree(graded_once.folder / "out", shell.folder / "out")
    return shell


def test_the_same_logs_give_the_same_files(graded):
    before = content(graded.folder / "out")
    summary = regrade(graded.folder / "out", dry_run=False)
    assert (summary.changes, summary.total, summary.derived) == ((), 6, 4)
    assert content(graded.folder / "out") == before


def test_other_lists_of_tests_change_verdicts_and_reports(graded):
    folder = graded.folder / "out"

    def demand_more(row):
        if row["instance_id"] == IDS[0]:
            row["FAIL_TO_PASS"].append("test_of_another_day")

    rewrite(folder / "instances.jsonl", demand_more)
    before = content(folder)
    shown = graded.run("regrade", "out", "--dry-run")
    assert shown.startswith(f"{IDS[0]} #0 (gold): resolved → unresolved")
    assert content(folder) == before
    regrade(folder, dry_run=False)
    verdicts = rows(folder / "verdicts.jsonl")
    statuses = {(v["instance_id"], v["model"]): v["status"] for v in verdicts}
    assert statuses[IDS[0], "gold"] == "unresolved"
    assert statuses[IDS[1], "gold"] == "resolved"
    report = json.loads((folder / "report.json").read_text())
    assert report["resolved_ids"] == [IDS[1]]
    gold = next(v for v in verdicts if v["instance_id"] == IDS[0])
    beside = json.loads((folder / gold["log"] / "report.json").read_text())
    assert beside == {IDS[0]: gold["report"]}
    again = graded.run("regrade", "out")
    assert "0 of 6 verdicts change; 2 have no complete test log" in again


def test_better_flags_are_found_in_old_logs(graded):
    folder = graded.folder / "out"
    gold = next(v for v in rows(folder / "verdicts.jsonl") if v["model"] == "gold")
    log = folder / gold["log"] / "test_output.txt"
    text = log.read_text()
    log.write_text(
        text.replace(": '>>>>> End", ": '>>>>> End Test Output'\n: '>>>>> End")
    )
    ((_, was, now),) = regrade(folder, dry_run=False).changes
    assert (was.flags, now.flags) == ((), ("multi_marker",))
    gold = next(v for v in rows(folder / "verdicts.jsonl") if v["model"] == "gold")
    assert (gold["status"], gold["flags"]) == ("resolved", ["multi_marker"])


def test_what_cannot_be_derived_stays(graded):
    folder = graded.folder / "out"
    before = (folder / "verdicts.jsonl").read_bytes()
    for number, log_dir in enumerate((folder / "logs").glob("*/*/*/*/")):
        if number == 0:
            shutil.rmtree(log_dir)
        elif number == 1:
            (log_dir / "patch.diff").write_text("another patch\n")
        elif number == 2:
            execution = json.loads((log_dir / "execution.json").read_text())
            execution["timed_out"] = True
            (log_dir / "execution.json").write_text(json.dumps(execution))
    summary = regrade(folder, dry_run=False)
    assert (summary.changes, summary.total, summary.derived) == ((), 6, 1)
    assert (folder / "verdicts.jsonl").read_bytes() == before


def test_what_is_no_grading_is_refused(graded):
    (graded.folder / "empty").mkdir()
    with pytest.raises(DataError, match="neither a run directory"):
        regrade(graded.folder / "empty", dry_run=False)
    (graded.folder / "out/report.json").unlink()
    with pytest.raises(StageError, match="has not finished"):
        regrade(graded.folder / "out", dry_run=False)


@pytest.fixture(scope="module")
def trained_once(new_shell):
    from .conftest import RECIPE

    shell = new_shell()
    shell.run(shell.write(RECIPE.replace("believer", "namespace")))
    return shell


@pytest.fixture
def trained(trained_once, shell):
    shutil.copytree(trained_once.folder / "runs", shell.folder / "runs")
    shutil.copytree(trained_once.folder / "cache", shell.folder / "cache")
    shutil.copy(trained_once.folder / "recipe.toml", shell.folder)
    return shell


@pytest.mark.slow
def test_a_run_without_changes_stays_finished(trained):
    before = trained.results()
    out = trained.run("regrade", "runs/small")
    assert " verdicts change" in out and "0 of " in out and "rerun" not in out
    assert trained.results() == before
    assert trained.run("recipe.toml").count("up to date") == 9


@pytest.mark.slow
def test_a_run_goes_on_from_its_new_verdicts(trained):
    """A failure that now seems a pass is looked at, and has its second run."""
    verdicts = trained.rows("grade", "verdicts.jsonl")
    failed = next(v for v in verdicts if v["status"] == "unresolved")
    passed = next(
        v
        for v in verdicts
        if v["status"] == "resolved" and v["instance_id"] == failed["instance_id"]
    )
    stage = trained.stage("grade")
    shutil.copy(
        stage / passed["log"] / "test_output.txt",
        stage / failed["log"] / "test_output.txt",
    )
    before = trained.results()
    shown = trained.run("regrade", "runs/small", "--dry-run")
    assert "unresolved → resolved +unconfirmed" in shown
    assert "the next `swebench-train run` would rerun: grade, pairs" in shown
    assert trained.results() == before
    trained.run("regrade", "runs/small")
    aside = {p.name for p in (trained.folder / "runs/small/superseded").iterdir()}
    assert aside == {"pairs.1", "dpo.1", "evaluate.1", "publish.1"}
    out = trained.run("recipe.toml")
    assert out.count("up to date") == 4  # prepare, admit, sft, generate
    now = trained.rows("grade", "verdicts.jsonl")
    mended = next(
        v
        for v in now
        if v["sample"] == failed["sample"] and v["instance_id"] == failed["instance_id"]
    )
    # The real second run fails, as the first did before its log was exchanged.
    assert (mended["status"], mended["flags"]) == ("resolved", ["flaky"])


@pytest.mark.slow
def test_a_run_takes_over_the_installed_harness(trained):
    for name in ("admit", "grade", "evaluate"):
        path = trained.stage(name) / "fingerprint.json"
        parts = json.loads(path.read_text())
        parts.pop("digest")
        parts["plugins"]["swebench"] = "5.0.0"
        path.write_text(json.dumps({**parts, "digest": digest(parts)}))
    out = trained.run("recipe.toml", code=1)
    assert "swebench: '5.0.0' → '5." in out
    trained.run("regrade", "runs/small")
    assert trained.run("recipe.toml").count("up to date") == 9
