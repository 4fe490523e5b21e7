"""Prompts that show files: how long they are, and what is not taught."""

import json

import pytest

from swebench_trainer.hf import HfBackend
from swebench_trainer.training.models.table import HfTable

from .conftest import QUICKSTART

RECIPE = f"""\
schema_version = 1
name = "small"
[data]
use = "task-repo"
path = "{QUICKSTART}"
include = {{ repos = ["quickstart/foldline"] }}
holdout = {{ by = "instance", fraction = 0.3 }}
[prompt]
use = "oracle"
context_tokens = 900
[model]
name = "builtin:tiny"
quantization = "none"
[sft]
"""


@pytest.fixture
def prepare(shell):
    def prepare(*arguments, recipe=RECIPE, **how):
        name = shell.write(recipe)
        return shell.run(name, "--until", "prepare", *arguments, **how)

    return prepare


def test_the_budget_is_counted_with_the_models_tokenizer(shell, prepare):
    prepare()
    count = HfBackend(HfTable(name="builtin:tiny")).open_counter()
    lengths = [count(row["prompt"]) for row in shell.rows("prepare", "prompts.jsonl")]
    assert len(lengths) > 3
    assert 700 < max(lengths) <= 900


def test_prompts_depend_on_the_tokenizer_but_not_on_the_adapter(shell, prepare):
    prepare()
    assert "prepare" in prepare("--set", "model.lora.rank=8")
    out = prepare("--set", 'model.revision="other"', code=1)
    assert "tokens: 'builtin:tiny@latest' → 'builtin:tiny@other'" in out
    settings = json.loads((shell.stage("prepare") / "fingerprint.json").read_text())
    assert not [key for key in settings["settings"] if key.startswith("model.")]


def test_prompts_without_files_do_not_depend_on_the_tokenizer(shell, prepare):
    issue = RECIPE.replace("oracle", "issue").replace("context_tokens = 900\n", "")
    prepare(recipe=issue)
    prepare("--set", 'model.revision="other"', recipe=issue)


BM25 = RECIPE.replace("oracle", "bm25")


def test_answers_that_edit_hidden_lines_are_not_trained_on(shell, prepare):
    small = BM25.replace("context_tokens = 900", "context_tokens = 900\nfiles = 1")
    out = prepare(recipe=small.split("[model]")[0])
    assert "all gold files in the first 1, 5, 10" in out
    assert "% of 8 instances" in out
    prompts = {r["instance_id"]: r for r in shell.rows("prepare", "prompts.jsonl")}
    assert all(r["context"] == "bm25" and r["retrieved"] for r in prompts.values())
    reasons = {
        row["instance_id"]: row["reason"]
        for row in shell.rows("prepare", "dropped.jsonl")
        if row["from"] == "sft"
    }
    taught = {row["instance_id"] for row in shell.rows("prepare", "sft.jsonl")}
    assert reasons and taught and not taught & reasons.keys()
    for reason in reasons.values():
        assert "lines that the prompt does not show (foldline/" in reason
    for name in taught:
        (shown,) = prompts[name]["files"]
        patch = (QUICKSTART / "tasks" / name / "gold.patch").read_text()
        assert f"--- a/{shown}\n" in patch


def test_a_file_list_is_fingerprinted_by_content(shell, prepare):
    recipe = RECIPE.replace("oracle", 'files"\nlist = "list.jsonl')
    recipe = recipe.split("[model]")[0]
    names = [p.name for p in (QUICKSTART / "tasks").glob("*foldline*")]

    def write(*files):
        rows = [{"instance_id": name, "files": files} for name in names[:-1]]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (shell.folder / "list.jsonl").write_text(text)

    write("foldline/words.py", "gone.py")
    prepare(recipe=recipe)
    rows = shell.rows("prepare", "prompts.jsonl")
    assert {row["context"] for row in rows} == {"files"}
    assert all(row["files"] == ["foldline/words.py"] for row in rows)
    assert all(row["skipped"].keys() == {"gone.py"} for row in rows)
    reasons = [row["reason"] for row in shell.rows("prepare", "dropped.jsonl")]
    assert reasons.count("list.jsonl lists no files for it") == 1
    write("foldline/words.py")
    assert "prompt.list:" in prepare(recipe=recipe, code=1)
    (shell.folder / "list.jsonl").write_text("{\n")
    out = prepare("--redo", "prepare", recipe=recipe, code=1)
    assert "list.jsonl, line 1: invalid JSON" in out
