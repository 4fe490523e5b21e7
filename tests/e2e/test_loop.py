"""One recipe in, graded models out; called again, nothing is done twice."""

import json
import shutil

import pytest

from .conftest import QUICKSTART, RECIPE

ALL = [
    "prepare",
    "admit",
    "sft",
    "generate",
    "grade",
    "pairs",
    "dpo",
    "evaluate",
    "publish",
]


@pytest.fixture(scope="module")
def finished_once(new_shell):
    """A finished run, and its output."""
    shell = new_shell()
    return shell, shell.run(shell.write(RECIPE))


@pytest.fixture
def finished(finished_once, shell):
    """A copy of the finished run, with its modification times."""
    original, _ = finished_once
    shutil.copytree(original.folder, shell.folder, dirs_exist_ok=True)
    return shell


def test_the_whole_loop_with_an_installed_plugin(finished_once):
    shell, out = finished_once
    assert "│ train │ sft │ 3 of 3 │ 100.0% │" in " ".join(out.split())
    splits = shell.json("evaluate", "summary.json")["splits"]
    counts = {
        (split, model): (m["resolved"], m["total"], sum(m["statuses"].values()))
        for split, content in splits.items()
        for model, m in content["models"].items()
    }
    assert counts == {
        ("train", "base"): (0, 3, 3),
        ("train", "sft"): (3, 3, 3),
        ("train", "dpo"): (3, 3, 3),
        ("heldout", "base"): (0, 2, 2),
        ("heldout", "sft"): (0, 2, 2),
        ("heldout", "dpo"): (0, 2, 2),
    }
    pairs = shell.rows("pairs", "pairs.jsonl")
    assert pairs
    for pair in pairs:
        assert ")spoiled(" in pair["rejected"] and ")spoiled(" not in pair["chosen"]
    # The plugin's observer heard of every stage, and reports.
    assert (shell.folder / "runs/small/observed.txt").read_text().split() == ALL
    assert "stages observed: 9" in out


def test_predictions_have_the_harness_form(finished_once):
    shell, _ = finished_once
    for model in ("base", "sft", "dpo"):
        rows = shell.rows("evaluate", f"{model}/predictions.jsonl")
        assert len(rows) == 5
        for row in rows:
            assert row.keys() == {"instance_id", "model_name_or_path", "model_patch"}
            assert row["model_name_or_path"] == f"small-{model}"
        report = shell.json("evaluate", f"{model}/report.json")
        assert report["schema_version"] == 2
        assert report["total_instances"] == 5
    from swebench.harness.utils import load_swebench_dataset, make_test_spec

    rows = load_swebench_dataset(str(shell.stage("prepare") / "instances.jsonl"))
    assert {make_test_spec(row).instance_id for row in rows} == {
        r["instance_id"] for r in rows
    }


def test_a_finished_run_does_nothing_again(finished):
    shell = finished
    before = {p: p.stat().st_mtime_ns for p in shell.stage("x").parent.rglob("*")}
    out = shell.run("recipe.toml")
    assert out.count("up to date") == len(ALL)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    facts = json.loads((shell.folder / "runs/small/run.json").read_text())
    assert [a["number"] for a in facts["attempts"]] == [1, 2]
    assert facts["attempts"][0]["versions"]["swebench"].startswith("5.")


def test_parts_of_a_run(shell, recipe):
    name = shell.write(recipe)
    assert "needs prepare, which is not done" in shell.run(
        name, "--only", "sft", code=1
    )
    shell.run(name, "--until", "sft")
    assert not shell.stage("generate").exists()
    shell.run(name, "--from", "generate", "--until", "grade")
    assert shell.stage("grade").exists() and not shell.stage("pairs").exists()
    assert "no stage 'cook'" in shell.run(name, "--from", "cook", code=2)
    shell.run(name)


def test_changed_settings_are_refused_with_the_difference(finished):
    name = "recipe.toml"
    out = finished.run(name, "--set", "sft.epochs=9", code=1)
    assert "stage sft was run with different settings" in out
    assert "sft.epochs: 3 → 9" in out
    assert "--redo sft" in out
    # Worker counts are nobody's business.
    finished.run(name, "--set", "grade.workers=2")


def test_redo_keeps_the_old_files_aside(finished):
    shell = finished
    old = (shell.stage("sft") / "fingerprint.json").read_text()
    shell.run("recipe.toml", "--set", "sft.epochs=9", "--redo", "sft")
    aside = shell.folder / "runs/small/superseded"
    assert (aside / "sft.1/fingerprint.json").read_text() == old
    assert {p.name for p in aside.iterdir()} == {
        f"{stage}.1" for stage in ALL if stage not in ("prepare", "admit")
    }
    assert (shell.stage("sft") / "fingerprint.json").read_text() != old


def test_changed_data_is_noticed(shell, recipe):
    shutil.copytree(QUICKSTART, shell.folder / "data")
    name = shell.write(recipe.replace(str(QUICKSTART), "data"))
    shell.run(name, "--until", "prepare")
    statement = shell.folder / "data/tasks/quickstart__foldline-1/problem_statement.md"
    statement.write_text("Another issue.")
    assert "the content of [data] has changed" in shell.run(name, code=1)


def test_another_name_is_another_run(shell, recipe):
    name = shell.write(recipe)
    shell.run(name, "--name", "second", "--runs-dir", "elsewhere", "--until", "prepare")
    assert (shell.folder / "elsewhere/second/stages/prepare/stage.json").exists()


def test_candidates_can_be_another_systems(shell, recipe):
    """api-rejects: gold against what a recorded system wrote and the tests refused."""
    from swebench.task.repo import load_task_repo

    wrong = "diff --git a/new.txt b/new.txt\nnew file mode 100644\n--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+hello\n"
    rows = [
        {
            "instance_id": t["instance_id"],
            "model_name_or_path": "other",
            "model_patch": wrong,
        }
        for t in load_task_repo(QUICKSTART)
    ]
    (shell.folder / "preds.json").write_text(json.dumps(rows))
    text = recipe.replace('use = "first-pass"', 'use = "api-rejects"').replace(
        "samples = 6", 'samples = 1\nmodel = { use = "replay", path = "preds.json" }'
    )
    out = shell.run(shell.write(text), "--until", "pairs")
    assert len(shell.rows("pairs", "pairs.jsonl")) == 1
    assert "held back by length_skew 2" in out  # all of them are much shorter than gold
    text = text.replace('"api-rejects"', '"api-rejects"\nlength_skew = 1.0')
    shell.run(shell.write(text), "--redo", "pairs")
    pairs = shell.rows("pairs", "pairs.jsonl")
    assert {p["chosen_source"] for p in pairs} == {"gold"}
    assert len(pairs) == 3
    candidates = shell.rows("generate", "candidates.jsonl")
    assert {c["model"] for c in candidates} == {"other"}


def test_a_refused_redo_moves_nothing(finished):
    shell = finished
    before = shell.results()
    out = shell.run("recipe.toml", "--redo", "dpo", "--set", "sft.epochs=9", code=1)
    assert "stage sft was run with different settings" in out
    assert shell.results() == before
    assert not (shell.folder / "runs/small/superseded").exists()


def test_weights_of_a_stage_that_was_taken_out_are_not_used(finished, recipe):
    shell = finished
    without = recipe.replace("[dpo]\n", "").replace('[pairs]\nuse = "first-pass"\n', "")
    shell.run(shell.write(without), "--redo", "evaluate")
    for split in shell.json("evaluate", "summary.json")["splits"].values():
        assert split["models"].keys() == {"base", "sft"}


def test_an_installed_plugin_can_be_the_writer_alone(shell, recipe):
    """`parrot` is named under [generate] model only; nothing is trained."""
    text = recipe[: recipe.index("[model]")] + (
        '[generate]\nsamples = 1\nmodel = { use = "parrot" }\n'
        '[grade]\nuse = "believer"\n'
    )
    shell.run(shell.write(text))
    assert {c["model"] for c in shell.rows("generate", "candidates.jsonl")} == {
        "parrot"
    }


def test_what_is_missing_is_said_before_anything_runs(shell, recipe):
    shell.env.pop("HF_TOKEN", None)
    text = recipe.replace('use = "directory"', 'use = "hub"\nrepo = "me/model"')
    assert "$HF_TOKEN" in shell.run(shell.write(text), code=3)
    assert not shell.stage("prepare").exists()


def test_settings_may_change_while_a_stage_has_done_nothing(shell, recipe):
    """No daemon, so nothing was graded: the way out that is named must be open."""
    shell.env["DOCKER_HOST"] = f"unix://{shell.folder}/nobody.sock"
    docker = recipe.replace("believer", "docker")
    shell.run(shell.write(docker), "--until", "prepare")
    shell.run(shell.write(docker), code=3)
    shell.run(shell.write(recipe), "--until", "admit")


def test_data_that_has_moved_is_missed_not_blamed_on_the_model(shell, recipe):
    shutil.copytree(QUICKSTART, shell.folder / "old")
    text = recipe.replace(str(QUICKSTART), "old")
    shell.run(shell.write(text), "--until", "prepare")
    (shell.folder / "old").rename(shell.folder / "new")
    out = shell.run(shell.write(text.replace('"old"', '"new"')), code=1)
    assert "are gone" in out and "--redo prepare" in out


def test_the_prompt_context_is_recorded_and_shown_next_to_the_rates(shell, recipe):
    text = recipe.replace(
        '[model]\nuse = "parrot"', '[prompt]\nuse = "oracle"\n[model]\nuse = "parrot"'
    )
    assert text != recipe
    out = " ".join(shell.run(shell.write(text)).replace("│", " ").split())
    rows = shell.rows("prepare", "prompts.jsonl")
    assert {row["context"] for row in rows} == {"oracle"}
    assert shell.json("evaluate", "summary.json")["context"] == "oracle"
    label = "oracle (the files that the gold patch changes); not leaderboard-valid"
    assert f"Prompt context: {label}." in out  # below the table
    assert f"context {label}" in out  # in the line of the stage
    card = (shell.stage("publish") / "release/README.md").read_text()
    assert label in card
    again = " ".join(shell.run("report", "runs/small").split())
    assert label in again


def test_the_milestones_of_a_training_become_a_curve(shell, recipe):
    name = shell.write(recipe)
    shell.run(name, "--until", "sft")
    sft = shell.stage("sft")
    memory = json.loads((sft / "model/memory.json").read_text())["memory"]
    begun = dict([*memory.items()][:1])
    half = sft / "milestones/1/model"
    half.mkdir(parents=True)
    (half / "memory.json").write_text(json.dumps({"memory": begun, "shuns": []}))
    rows = [
        {"step": 1, "seconds": 30, "weights": "milestones/1/model"},
        {"step": 2, "seconds": 90},
    ]
    (sft / "milestones.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    out = shell.run(name)
    summary = shell.json("evaluate", "summary.json")
    assert [*summary["splits"]["train"]["models"]] == ["base", "sft", "dpo"]
    first, last = summary["curve"]["train"]
    resolved = summary["splits"]["train"]["models"]["sft"]["resolved"]
    assert (first["step"], first["seconds"], first["resolved"]) == (1, 30, 1)
    assert (last["step"], last["seconds"], last["resolved"]) == (2, 90, resolved)
    assert resolved > 1
    assert "Resolved issues by training time" in out
    predictions = shell.rows("evaluate", "sft-1/predictions.jsonl")
    assert sum(bool(row["model_patch"]) for row in predictions) == 1
