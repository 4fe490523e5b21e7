"""Restyling removes the style difference between gold and rejects of a chatty model."""

from __future__ import annotations

import dataclasses

import pytest

from swebench_trainer.answers.forms import render_answer
from swebench_trainer.contents.directory import Directory
from swebench_trainer.contracts import GradedInstance
from swebench_trainer.data.task_repo import TaskRepoSource, TaskRepoTable
from swebench_trainer.preferences.normalize import form_in
from swebench_trainer.preferences.strategies import ApiRejects, ApiRejectsTable
from swebench_trainer.preferences.surface import classify
from swebench_trainer.types import Candidate, Status, Verdict

CHATTY = "Sure! The cause is in the loop. Here is the fix:\n\n```\n{}```\n\nAll done."


def spoiled(patch: str) -> str:
    """The patch with two characters of an added line swapped."""
    lines = patch.split("\n")
    for at, line in enumerate(lines):
        bare = line[1:].strip()
        if line[:1] == "+" and line[:3] != "+++" and len(set(bare)) > 3:
            lines[at] = line.replace(bare, bare[1] + bare[0] + bare[2:])
            return "\n".join(lines)
    return patch


@pytest.fixture(scope="module")
def graded(request):
    root = request.config.rootpath / "recipes" / "quickstart"
    table = TaskRepoTable(use="task-repo", path=root)
    found = []
    for instance in TaskRepoSource(table).load().instances:
        tree = Directory(instance.snapshot)
        wrong = spoiled(instance.patch)
        answers = {
            patch: render_answer(
                "search-replace", dataclasses.replace(instance, patch=patch), tree
            )
            for patch in (instance.patch, wrong)
        }
        name = instance.instance_id
        candidate = Candidate(name, 0, "m", CHATTY.format(answers[wrong]), wrong)
        found.append(
            GradedInstance(
                instance,
                "prompt",
                answers[instance.patch],
                ((candidate, Verdict(name, 0, "m", Status.UNRESOLVED)),),
                forms={patch: form_in(tree, patch) for patch in answers},
                rendered=answers,
            )
        )
    return found


def accuracy(graded, **keys) -> float:
    table = ApiRejectsTable(use="api-rejects", length_skew=1.0, **keys)
    pairs = list(ApiRejects(table).pairs(graded))
    assert len(pairs) >= 20
    found = classify(pairs)
    return found.correct / found.pairs


def test_the_words_around_a_patch_give_rejects_away(graded) -> None:
    assert accuracy(graded, restyle=False) == 1.0


def test_restyled_rejects_look_like_gold(graded) -> None:
    assert accuracy(graded) < 0.7
