"""Rates are of prompts that show the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from swebench_trainer.errors import StageError
from swebench_trainer.prompts.oracle import OracleStyle, OracleTable
from swebench_trainer.prompts.ranked_files import Bm25Style, ListedStyle
from swebench_trainer.prompts.styles import IssueStyle
from swebench_trainer.recipe.models import PromptTable
from swebench_trainer.stages.context import StageContext
from swebench_trainer.stages.graph import STAGES
from swebench_trainer.store.jsonl import write_rows
from swebench_trainer.store.rundir import RunDir
from swebench_trainer.types import Instance


@pytest.fixture
def context_of(tmp_path):
    """What prompts with these contexts are told to show, for the first `count`."""

    def ask(*contexts, count=None):
        run = RunDir(tmp_path)
        rows = [
            {"instance_id": f"i-{n}", "prompt": "p", **({"context": c} if c else {})}
            for n, c in enumerate(contexts)
        ]
        run.stage("prepare").path.mkdir(parents=True, exist_ok=True)
        write_rows(run.stage("prepare").file("prompts.jsonl"), rows)
        recipe = SimpleNamespace(prompt=SimpleNamespace(use="a-style"))
        context = StageContext(STAGES[-2], recipe, run, None, frozenset(), None, None)
        instances = [
            Instance(row["instance_id"], "r/r", "0" * 40, "p", "")
            for row in rows[:count]
        ]
        return context.prompt_context(instances)

    return ask


def test_prompts_of_one_context_have_it(context_of):
    assert context_of("issue", "issue") == "issue"


def test_contexts_are_not_mixed(context_of):
    with pytest.raises(StageError, match="different contexts: issue, oracle"):
        context_of("issue", "oracle")
    assert context_of("issue", "oracle", count=1) == "issue"


def test_a_style_without_a_word_for_it_and_runs_of_before_have_the_styles_name(
    context_of,
):
    assert context_of("", "") == "a-style"


def test_our_styles_say_what_they_show():
    assert IssueStyle(PromptTable()).context == "issue"
    assert OracleStyle(OracleTable()).context == "oracle"
    assert Bm25Style.context == "bm25"
    assert ListedStyle.context == "files"
