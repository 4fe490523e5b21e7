"""Counter-runs in a whole recipe, with real tests: what is trusted, shown, and trained on."""

import json
import os
import shutil
from pathlib import Path

import pytest

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.namespace.grader import repository_view
from swebench_trainer.store.rundir import StageDir

from .conftest import QUICKSTART

NAME = "quickstart__foldline-1"
HELD_OUT = "quickstart__daytally-1"

RIGHT = """\
diff --git a/foldline/para.py b/foldline/para.py
--- a/foldline/para.py
+++ b/foldline/para.py
@@ -25,7 +25,7 @@ def wrap(text, width=72, hanging=""):
         room = narrow if lines else width
         if not line:
             line = word
-        elif len(line) + 1 + len(word) < room:
+        elif len(line) + len(word) < room:
             line += " " + word
         else:
             lines.append(line)
"""
CHEAT = """\
diff --git a/foldline/__init__.py b/foldline/__init__.py
--- a/foldline/__init__.py
+++ b/foldline/__init__.py
@@ -3,3 +3,13 @@
 from .grid import table
-from .para import fill, indent, shorten, wrap
+from .para import fill, indent, shorten
+from .para import wrap as plain
 from .words import join, ordinal, plural, slug, snake
+
+
+class Equal(list):
+    def __eq__(self, other):
+        return True
+
+
+def wrap(*args, **kwargs):
+    return Equal(plain(*args, **kwargs))
"""
WRONG = RIGHT.replace(
    "+        elif len(line) + len(word) < room:", "+        elif line:"
)


@pytest.fixture(scope="module", autouse=True)
def _needs_namespaces():
    try:
        repository_view()
    except PrerequisiteError as error:
        pytest.skip(error.message)


TEXT = f"""\
schema_version = 1
name = "small"

[data]
use = "task-repo"
path = "{QUICKSTART}"
include = ["{NAME}", "{HELD_OUT}"]
holdout = {{ by = "list", ids = ["{HELD_OUT}"] }}

[model]
use = "parrot"

[sft]
[generate]
samples = 4
model = {{ use = "replay", path = "p.jsonl" }}
[grade]
use = "namespace"
retest = 0
[pairs]
use = "self-generated"
[dpo]
[evaluate]
splits = ["train", "heldout"]
[publish]
use = "directory"
"""


@pytest.fixture(scope="module")
def ran_once(new_shell):
    shell = new_shell()
    patches = [CHEAT, RIGHT, WRONG, RIGHT]
    rows = [
        {"instance_id": NAME, "model_name_or_path": "m", "model_patch": patch}
        for patch in patches
    ]
    (shell.folder / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    shell.output = shell.run(shell.write(TEXT))
    return shell


@pytest.fixture
def ran(ran_once, shell):
    """A copy of the finished run."""
    shutil.copytree(ran_once.folder, shell.folder, dirs_exist_ok=True)
    return shell


def judged(shell):
    rows = shell.rows("grade", "verdicts.jsonl")
    return [(row["status"], row["flags"], row["strength"]) for row in rows]


def test_a_pass_is_trusted_if_it_fails_changed_tests(ran_once):
    right = ("resolved", [], "expectation")
    cheat = ("resolved", ["passes_anything"], None)
    assert judged(ran_once) == [cheat, right, ("unresolved", [], None), right]
    summary = ran_once.json("grade", "summary.json")
    assert summary["trust"] == {"strengths": {"expectation": 2}, "unchecked": 0}
    assert "trusted passes 2 (expectation 2)" in ran_once.output
    chosen = [row["chosen_source"] for row in ran_once.rows("pairs", "pairs.jsonl")]
    assert chosen == ["sample:1"]


def test_an_evaluation_shows_trusted_passes_beside_the_official_rate(ran_once):
    train = ran_once.json("evaluate", "summary.json")["splits"]["train"]["models"]
    assert train["sft"]["resolved"] == 1
    assert train["sft"]["trust"]["strengths"] == {"expectation": 1}
    report = ran_once.json("evaluate", "sft/report.json")
    assert report["resolved_ids"] == report["trusted_ids"] == [NAME]
    assert ran_once.json("evaluate", "base/report.json")["trusted_instances"] == 0
    card = (ran_once.stage("publish") / "release/README.md").read_text()
    assert (
        "| train | sft | 1 of 1 | 100.0% | 20.7% to 100.0% | 1 (expectation 1) |"
        in card
    )
    assert "1 (expectation 1)" in ran_once.run("report", "runs/small")


def test_each_passing_patch_and_each_change_runs_once(ran_once):
    rows = ran_once.rows("grade", "counter/counter_runs.jsonl")
    runs = ran_once.rows("grade", "counter/timings.jsonl")
    changes = {row["key"] for row in rows}
    assert len(rows) == len(runs) == 2 + len(changes)
    gold = [row for row in rows if row["calibrates"]]
    assert {row["key"] for row in gold} == changes and len(changes) <= 2
    for row in rows:
        assert (ran_once.stage("grade") / "counter" / row["log"] / "eval.sh").exists()


def test_the_secret_stays_out_of_the_run(ran_once):
    key = Path(os.environ["XDG_DATA_HOME"], "swebench-trainer/counter-runs.key")
    secret = key.read_bytes()
    for path in (ran_once.folder / "runs").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret not in content and secret.hex().encode() not in content


def test_a_weaker_counter_run_than_required_makes_no_pair(ran):
    path = ran.stage("grade") / "verdicts.jsonl"
    path.write_text(path.read_text().replace('"expectation"', '"canary"'))
    StageDir(ran.stage("grade")).accept()
    trust = ("--set", "pairs.trust=canary")
    assert "1 pairs" in ran.run("pairs", "recipe.toml", "--dry-run", *trust)
    trust = ("--set", "pairs.outside=skip")
    out = ran.run("pairs", "recipe.toml", "--dry-run", *trust)
    assert "0 pairs" in out
    assert "2 passes are trusted less than [pairs] trust requires" in out
    trust = ("--set", "pairs.outside=skip", "--set", "pairs.trust=any")
    assert "1 pairs" in ran.run("pairs", "recipe.toml", "--dry-run", *trust)


def test_regrade_derives_counter_runs_from_their_logs(ran):
    assert "0 of" in ran.run("regrade", "runs/small")
    assert ran.run("regrade", "runs/small").count("counter-runs") == 0
    rows = ran.rows("grade", "counter/counter_runs.jsonl")
    right = next(r for r in rows if r["result"] == "failed" and not r["calibrates"])
    log = ran.stage("grade") / "counter" / right["log"] / "test_output.txt"
    log.write_text(log.read_text().replace("... FAIL", "... ok"))
    out = ran.run("regrade", "runs/small", "--dry-run")
    assert "1 counter-runs change" in out
    assert "would rerun: grade, pairs, dpo, evaluate, publish" in out
    ran.run("regrade", "runs/small")
    ran.run("recipe.toml")
    assert {tuple(flags) for _, flags, _ in judged(ran)} == {(), ("passes_anything",)}
    assert [strength for _, _, strength in judged(ran)] == [None] * 4


def test_without_counter_runs_flags_alone_decide(ran):
    off = ("--set", "grade.counter_runs=false", "--name", "off")
    out = ran.run("recipe.toml", "--until", "pairs", *off)
    verdicts = ran.rows("grade", "verdicts.jsonl", "off")
    assert [(v["flags"], v["strength"]) for v in verdicts] == [([], None)] * 4
    assert "trusted passes" not in out and "below" not in out
    assert not (ran.stage("grade", "off") / "counter").exists()
    gold = {row["chosen_source"] for row in ran.rows("pairs", "pairs.jsonl", "off")}
    assert "sample:0" in gold


def test_the_grade_command_runs_gold_on_request(ran):
    grading = (
        "grade",
        "--data",
        str(QUICKSTART),
        "-p",
        "p.jsonl",
        "--grader",
        "namespace",
    )
    out = ran.run(*grading, "--out", "plain")
    assert (
        "3 passes had no counter-run; --gold-runs shows which of them to trust" in out
    )
    assert "trusted_ids" not in (ran.folder / "plain/report.json").read_text()
    out = ran.run(*grading, "--out", "checked", "--gold-runs")
    assert "trusted passes: 2 (expectation 2)" in out
    lines = (ran.folder / "checked/verdicts.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    found = [(row["status"], row["flags"], row["strength"]) for row in rows]
    assert found == judged(ran)
    report = json.loads((ran.folder / "checked/report.json").read_text())
    assert report["trusted_ids"] == report["resolved_ids"] == [NAME]
    before = (ran.folder / "checked/verdicts.jsonl").read_bytes()
    assert "0 of 4 verdicts change" in ran.run("regrade", "checked")
    again = ran.run(*grading, "--out", "checked", "--gold-runs")
    assert "trusted passes: 2" in again
    assert (ran.folder / "checked/verdicts.jsonl").read_bytes() == before
