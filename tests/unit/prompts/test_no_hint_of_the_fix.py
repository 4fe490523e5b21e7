"""Prompts reveal nothing about the fix or its tests."""

from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import shorthand

from swebench_trainer.prompts.oracle import OracleStyle, OracleTable
from swebench_trainer.prompts.styles import IssueStyle
from swebench_trainer.recipe.models import PromptTable

OLD = {"a.py": b"def f():\n    return 1\n", "b.py": b"2\n"}
NEW = {"a.py": b"def f():\n    return 'the fix'\n", "b.py": b"2\n"}
OTHER = {"a.py": b"def f():\n    return 'another'\n", "b.py": b"2\n"}


@pytest.mark.parametrize(
    "style", [IssueStyle(PromptTable()), OracleStyle(OracleTable())]
)
def test_the_prompt_does_not_depend_on_the_fix(workshop, style) -> None:
    """The oracle reveals only which files the gold patch touches."""
    instance = workshop.instance(OLD, NEW, problem_statement="It breaks.")
    other = workshop.instance(OLD, OTHER, problem_statement="It breaks.")
    other = dataclasses.replace(
        other,
        snapshot=instance.snapshot,
        test_patch="+++ b/test_a.py\n",
        FAIL_TO_PASS=("test_a.py::test_f",),
        PASS_TO_PASS=("test_b.py::test_g",),
        eval_script="pytest test_a.py",
        base_commit="1" * 40,
    )
    render = partial(shorthand.render, style)
    assert instance.patch != other.patch
    assert render(instance) == render(other)
    assert "the fix" not in render(instance)
