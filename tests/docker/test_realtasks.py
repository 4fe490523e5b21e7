"""Bugs of real projects: the whole pipeline in Docker, compared with the official CLI."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from extended import EXTENDED

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "build" / "realtasks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.docker,
    pytest.mark.stock,
    pytest.mark.timeout(3000),
]


QUICK = (
    "inveniosoftware__dictdiffer-0.8.1",
    "lepture__mistune-3.1.1",
    "scrapy__w3lib-2.2.1",
    "tkem__cachetools-7.2.3",
)
"""Tasks with the shortest fixes, and one that is held out."""


def is_quick(row):
    return json.loads(row)["instance_id"] in QUICK


def command(*arguments, cwd):
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tasks(docker_client):
    command("tests/realtasks/build.py", TASKS, cwd=ROOT)
    return TASKS / "dataset.jsonl"


@pytest.fixture(scope="module")
def run(tasks, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    recipe = ROOT / "recipes" / "realtasks.toml"
    part = [] if EXTENDED else ["--set", f"data.include={list(QUICK)}"]
    options = ["--runs-dir", runs, *part]
    print(command("-m", "swebench_trainer", recipe, *options, cwd=ROOT))
    return runs / "realtasks" / "stages"


def test_the_loop_ends_with_graded_models(run):
    summary = json.loads((run / "evaluate/summary.json").read_text())
    train = summary["splits"]["train"]["models"]
    assert train["base"]["resolved"] == 0
    for model in ("sft", "dpo"):
        assert train[model]["resolved"] >= train[model]["total"] / 2
    totals = [s["models"]["dpo"]["total"] for s in summary["splits"].values()]
    tasks = len(list((TASKS / "tasks").iterdir())) if EXTENDED else len(QUICK)
    assert sum(totals) == tasks


@pytest.mark.parametrize("data", ["dataset.jsonl", "instances.jsonl"])
def test_the_official_cli_agrees(run, tasks, tmp_path, data):
    rows = (tasks if data == "dataset.jsonl" else run / "prepare" / data).read_text()
    wanted = [row for row in rows.splitlines() if EXTENDED or is_quick(row)]
    dataset = tmp_path / data
    dataset.write_text("\n".join(wanted))
    model = "sft" if data == "dataset.jsonl" else "dpo"
    predictions = run / "evaluate" / model / "predictions.jsonl"
    code = "from swebench.cli.cli import main; main()"
    options = ("--run-id", "parity", "-j", "2")
    command("-c", code, "eval", dataset, "-p", predictions, *options, cwd=tmp_path)
    official = json.loads((tmp_path / f"realtasks-{model}.parity.json").read_text())
    ours = json.loads((run / "evaluate" / model / "report.json").read_text())
    for key in (
        "resolved_ids",
        "unresolved_ids",
        "completed_ids",
        "submitted_ids",
        "incomplete_ids",
        "infra_failure_ids",
    ):
        assert official[key] == ours[key], key
    assert official["resolved_ids"]


def test_the_grade_command_resolves_every_gold_patch(tasks, tmp_path):
    rows = [json.loads(line) for line in tasks.read_text().splitlines()]
    gold = [
        {
            "instance_id": row["instance_id"],
            "model_name_or_path": "gold",
            "model_patch": row["patch"],
        }
        for row in rows
    ]
    (tmp_path / "gold.json").write_text(json.dumps(gold))
    arguments = ("--data", tasks, "--predictions", "gold.json", "--out", "out")
    command("-m", "swebench_trainer", "grade", *arguments, cwd=tmp_path)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["resolved_instances"] == len(rows)


CONTENTS = """\
schema_version = 1
name = "{place}"
[data]
use = "{use}"
path = "{path}"
[contents]
places = ["{place}"]
[prompt]
use = "oracle"
[generate]
samples = 1
model = {{ use = "replay", path = "gold.jsonl" }}
"""


def test_files_are_the_same_in_a_tasks_folder_and_in_its_image(tasks, tmp_path):
    rows = [json.loads(line) for line in tasks.read_text().splitlines()]
    gold = [
        {
            "instance_id": row["instance_id"],
            "model_name_or_path": "gold",
            "model_patch": row["patch"],
        }
        for row in rows
    ]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(g) + "\n" for g in gold))
    made = []
    for place, use, path in (("task", "task-repo", TASKS), ("image", "rows", tasks)):
        recipe = tmp_path / f"{place}.toml"
        recipe.write_text(CONTENTS.format(place=place, use=use, path=path))
        command("-m", "swebench_trainer", recipe, cwd=tmp_path)
        stages = tmp_path / "runs" / place / "stages"
        made.append((stages / "prepare" / "prompts.jsonl").read_text())
        made.append((stages / "prepare" / "sft.jsonl").read_text())
        candidates = (stages / "generate" / "candidates.jsonl").read_text()
        for candidate in map(json.loads, candidates.splitlines()):
            assert candidate["checks"]["applies"]
            assert ">>>>>>> REPLACE" in candidate["text"]
    assert made[:2] == made[2:]
    assert made[0].count("\n") == len(rows)
