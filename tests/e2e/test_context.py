"""Prompts that show files: how long they are, and what is not taught."""

import json

import pytest

from swebench_trainer.training.backend import HfBackend
from swebench_trainer.training.model import HfTable

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


def test_prompts_are_as_long_as_the_models_own_tokens_allow(shell, prepare):
    prepare()
    count = HfBackend(HfTable(name="builtin:tiny"), None).open_counter()
    lengths = [count(row["prompt"]) for row in shell.rows("prepare", "prompts.jsonl")]
    assert len(lengths) > 3
    assert 700 < max(lengths) <= 900


def test_prompts_change_with_the_tokenizer_and_not_with_the_adapter(shell, prepare):
    prepare()
    assert "prepare" in prepare("--set", "model.lora.rank=8")
    out = prepare("--set", 'model.revision="other"', code=1)
    assert "tokens: 'builtin:tiny@latest' → 'builtin:tiny@other'" in out
    settings = json.loads((shell.stage("prepare") / "fingerprint.json").read_text())
    assert not [key for key in settings["settings"] if key.startswith("model.")]


def test_prompts_without_files_do_not_care_about_tokens(shell, prepare):
    issue = RECIPE.replace("oracle", "issue").replace("context_tokens = 900\n", "")
    prepare(recipe=issue)
    prepare("--set", 'model.revision="other"', recipe=issue)
