"""Answers and prompts of an instance whose files lie beside it."""

from __future__ import annotations

from typing import Any

from swebench_trainer.answers import forms as answers
from swebench_trainer.answers.diffs import ExtractedPatch
from swebench_trainer.answers.forms import AnswerForm
from swebench_trainer.contents.directory import Directory
from swebench_trainer.contracts import PromptInputs, PromptStyle, Tree
from swebench_trainer.types import Instance


def tree_of(instance: Instance) -> Tree | None:
    return Directory(instance.snapshot) if instance.snapshot else None


def extract_patch(
    form: AnswerForm, answer: str, instance: Instance, **how: Any
) -> ExtractedPatch:
    return answers.extract_patch(form, answer, tree_of(instance), **how)


def render_answer(form: AnswerForm, instance: Instance, **how: Any) -> str:
    return answers.render_answer(form, instance, tree_of(instance), **how)


def material_of(instance: Instance) -> PromptInputs:
    def files() -> Tree:
        tree = tree_of(instance)
        if tree is None:
            raise ValueError("no files")
        return tree

    return PromptInputs(files, tokens=len)


def render(style: PromptStyle, instance: Instance) -> str:
    return style.render(instance, material_of(instance)).text
