"""Pairs of a run: their sources, and the output of a dry run."""

import json
import shutil

import pytest

from swebench_trainer.store.rundir import StageDir

from .conftest import QUICKSTART, RECIPE
from .test_preview import ESCAPES, MARKUP, files

NAME = "quickstart__foldline-1"


def own(recipe, **keys):
    lines = "".join(f"\n{key} = {value}" for key, value in keys.items())
    return recipe.replace('use = "first-pass"', f'use = "self-generated"{lines}')


@pytest.fixture(scope="module")
def graded_once(new_shell):
    """A run with graded candidates and no pairs yet."""
    shell = new_shell()
    shell.run(shell.write(own(RECIPE)), "--until", "grade")
    return shell


@pytest.fixture
def graded(graded_once, shell):
    """A copy of the graded run."""
    shutil.copytree(graded_once.folder, shell.folder, dirs_exist_ok=True)
    return shell


def test_every_pair_names_its_verdicts_and_logs(graded):
    shell = graded
    shell.run("recipe.toml", "--until", "pairs")
    pairs = shell.rows("pairs", "pairs.jsonl")
    verdicts = {
        (v["model"], v["instance_id"], f"sample:{v['sample']}"): v
        for v in shell.rows("grade", "verdicts.jsonl")
    }
    assert pairs
    for pair in pairs:
        ends = {"chosen": "resolved", "rejected": "unresolved"}
        for side, end in ends.items():
            key = (pair[f"{side}_model"], pair["instance_id"], pair[f"{side}_source"])
            assert verdicts[key]["status"] == end
            log = f"stages/grade/{verdicts[key]['log']}"
            assert pair[f"{side}_log"] == log and verdicts[key]["log"]
        assert pair["tier"] == "fails" and pair["strategy"] == "self-generated"
    stats = shell.json("pairs", "stats.json")
    assert stats["by_tier"] == {"fails": len(pairs)} and stats["graded"] is True
    assert sum(stats["by_repository"].values()) == stats["pairs"] == len(pairs)


def test_pairs_name_the_run_of_gold_and_the_models_that_a_plugin_left_out(
    graded, recipe
):
    shell = graded
    text = recipe.replace('use = "first-pass"', 'use = "api-rejects"')
    shell.run(shell.write(text), "--until", "pairs")
    gold = {
        v["instance_id"]: f"stages/admit/{v['log']}"
        for v in shell.rows("admit", "verdicts.jsonl")
        if v["model"] == "gold"
    }
    pairs = shell.rows("pairs", "pairs.jsonl")
    assert pairs
    for pair in pairs:
        assert pair["chosen_log"] == gold[pair["instance_id"]]
        assert pair["chosen_model"] == "" and pair["rejected_model"] == "parrot"
    shell.run(shell.write(recipe), "--until", "pairs", "--redo", "pairs")
    for pair in shell.rows("pairs", "pairs.jsonl"):
        assert pair["chosen_model"] == pair["rejected_model"] == "parrot"
        assert pair["chosen_log"] and pair["rejected_log"]


def test_a_dry_run_needs_a_graded_run(shell, recipe):
    name = shell.write(own(recipe))
    assert "stage prepare" in shell.run("pairs", name, "--dry-run", code=1)


def test_a_dry_run_counts_pairs_and_writes_nothing(graded):
    shell, name = graded, "recipe.toml"
    before = files(shell.folder / "runs")
    out = shell.run("pairs", name, "--dry-run")
    assert files(shell.folder / "runs") == before
    words = " ".join(out.split())
    assert "│ strategy │ self-generated │" in words
    assert "│ tier of rejected │ fails │" in words
    assert "│ repository │ quickstart/" in words
    assert "│ length │ similar │" in words and "Why not more pairs" in words
    assert out.count("rejected: sample:") == 3
    assert "- )spoiled(" in out and "+ )spoiled(" not in out
    assert " identical lines" in out

    shell.run("pairs", name, "-n", "0")
    assert f"{len(shell.rows('pairs', 'pairs.jsonl'))} pairs" in out
    band = ("--set", "pairs.min_pass_rate=1.0", "--set", "pairs.outside='skip'")
    easy = shell.run("pairs", name, "--dry-run", *band)
    assert (
        "0 pairs" in easy
        and "pass rate outside min_pass_rate and max_pass_rate" in easy
    )
    none = shell.run("pairs", name, "--dry-run", "--set", "pairs.mix={fails=0}")
    assert "0 pairs" in none and "pairs held back by mix.fails" in none


BROKEN = """
from swebench_trainer import hookimpl

class Broken:
    def pairs(self, graded):
        raise KeyError("lost")

@hookimpl
def register_pair_strategies(register):
    register("broken", lambda table: Broken())
"""


def test_a_dry_run_names_a_broken_strategy_and_the_command_that_logs_it(shell, recipe):
    shell.write(BROKEN, "broken.py")
    info = shell.folder / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text("[swebench_trainer]\nbroken = broken\n")
    name = shell.write(recipe.replace('"first-pass"', '"broken"'))
    shell.run(name, "--until", "grade")
    out = shell.run("pairs", name, "--dry-run", code=1)
    assert "'broken' of broken 1.0 failed in pairs: KeyError: 'lost'" in out
    assert "swebench-train run RECIPE --only pairs`" in out
    assert "log of the attempt" not in out
    shell.run("run", name, "--only", "pairs", code=1)
    logs = shell.folder.glob("runs/small/logs/attempt_*/swebench-train.log")
    assert any("KeyError: 'lost'" in log.read_text() for log in logs)


def test_settings_that_leave_no_pair_can_be_changed_without_redo(graded):
    shell, name = graded, "recipe.toml"
    nothing = shell.run(
        *(name, "--until", "pairs", "--set", "pairs.mix={fails=0}"), code=1
    )
    assert "No pairs could be made" in nothing and "mix.fails: " in nothing
    assert "--dry-run" in nothing
    shell.run(name, "--until", "pairs")
    assert shell.rows("pairs", "pairs.jsonl")


def test_pairs_are_made_after_the_files_are_gone(shell, recipe):
    text = own(recipe).replace("[model]", "[contents]\nalways = true\n[model]")
    shell.run(shell.write(text), "--until", "pairs")
    pairs = (shell.stage("pairs") / "pairs.jsonl").read_text()
    assert shell.json("pairs", "stats.json")["compared_by_changed_lines"] == 0
    rows = shell.rows("prepare", "instances.jsonl")
    assert {row["contents"] for row in rows} == {"task"}
    for row in rows:
        row["snapshot"] = ""
    path = shell.stage("prepare") / "instances.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    StageDir(path.parent).accept()
    shell.run("recipe.toml", "--until", "pairs", "--redo", "pairs")
    assert (shell.stage("pairs") / "pairs.jsonl").read_text() == pairs
    assert shell.json("pairs", "stats.json")["compared_by_changed_lines"] == 3


UNGRADED = f"""\
schema_version = 1
name = "small"

[data]
use = "task-repo"
path = "{QUICKSTART}"
include = ["{NAME}", "quickstart__foldline-2"]
holdout = {{ fraction = 0.0 }}

[contents]
always = true

[generate]
model = {{ use = "replay", path = "predictions.jsonl" }}
samples = 4

[pairs]
use = "api-rejects"
graded = false
"""


@pytest.fixture
def predictions(shell):
    """Gold, gold with a comment, a wrong patch, and an empty one."""
    gold = (QUICKSTART / "tasks" / NAME / "gold.patch").read_text()
    added = next(
        line for line in gold.splitlines() if line[:1] == "+" and line[:3] != "+++"
    )
    texts = [
        gold,
        gold.replace(added, f"{added}  # as it should be"),
        gold.replace(added, f"{added} + {ESCAPES.splitlines()[0]!r}"),
        "",
    ]
    rows = [
        {"instance_id": NAME, "model_name_or_path": "other", "model_patch": text}
        for text in texts
    ]
    path = shell.folder / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return texts


def test_without_grading_only_patches_that_differ_from_gold_are_rejected(
    shell, predictions
):
    out = shell.run(shell.write(UNGRADED))
    pairs = shell.rows("pairs", "pairs.jsonl")
    assert [(p["tier"], p["rejected_source"]) for p in pairs] == [
        ("ungraded", "sample:2"),
        ("no_patch", "sample:3"),
    ]
    assert not shell.stage("grade").exists()
    assert pairs[0]["chosen_log"] == pairs[0]["rejected_log"] == ""
    stats = shell.json("pairs", "stats.json")
    assert stats["graded"] is False and stats["by_tier"] == {
        "ungraded": 1,
        "no_patch": 1,
    }
    assert "ungraded rejects 1" in out
    (answer,) = (
        r["completion"]
        for r in shell.rows("prepare", "sft.jsonl")
        if r["instance_id"] == NAME
    )
    assert pairs[0]["chosen"] == answer
    shown = shell.run("pairs", "recipe.toml", "--dry-run")
    assert "rejects were not graded" in shown


def test_pairs_without_grading_must_be_requested(shell, predictions):
    graded = UNGRADED.replace("graded = false\n", "")
    assert "[pairs] needs [grade] in the same recipe" in shell.run(
        shell.write(graded), code=2
    )
    other = UNGRADED.replace('use = "api-rejects"', 'use = "self-generated"')
    assert "graded" in shell.run(shell.write(other), code=2)


def test_hostile_answers_are_shown_harmlessly(shell, predictions):
    shell.run(shell.write(UNGRADED))
    path = shell.stage("generate") / "candidates.jsonl"
    rows = shell.rows("generate", "candidates.jsonl")
    for row in rows:
        row["text"] = f"{ESCAPES}\n{MARKUP}\n{row['sample']}"
        row["model"] = f"evil{ESCAPES}"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = shell.run("pairs", "recipe.toml", "--dry-run", code=1)
    assert "candidates.jsonl has changed since stage generate finished" in changed
    StageDir(path.parent).accept()
    out = shell.run("pairs", "recipe.toml", "--dry-run", "--set", "pairs.restyle=false")
    assert "\x1b" not in out and "\x9b" not in out and "\u202e" not in out
    assert f"- {MARKUP}" in out and "<U+001B>" in out
