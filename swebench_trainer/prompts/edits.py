"""Which lines of the repository an answer is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swebench_trainer.contracts import Tree
from swebench_trainer.prompts.answers import AnswerForm
from swebench_trainer.prompts.blocks import fits, unique_hunks
from swebench_trainer.prompts.files import read_file
from swebench_trainer.prompts.patches import FileChange, Hunk, read_patch
from swebench_trainer.types import Instance


def gold_edits(
    form: AnswerForm, instance: Instance, tree: Tree
) -> dict[str, tuple[range, ...]]:
    """The old lines that the gold patch quotes when it is written as an answer.

    Returns:
        By path, the ranges of line indexes that SEARCH texts or hunks take; none for a
        file that is only deleted or moved. New files are not in it.

    Raises:
        ValueError: The patch does not fit the files.
    """
    return {
        change.old: tuple(
            range(hunk.start, hunk.end) for hunk in _hunks(form, change, tree)
        )
        for change in read_patch(instance.patch)
        if change.old
    }


def _hunks(form: AnswerForm, change: FileChange, tree: Tree) -> Sequence[Hunk]:
    assert change.old  # gold_edits
    if form == "search-replace" and change.new is None:
        return ()  # the answer names the file and quotes nothing of it
    file = read_file(tree, change.old)
    if file is None:
        raise ValueError(f"the repository has no file {change.old}")
    if form == "search-replace":
        return tuple(unique_hunks(change, file.text))
    if not all(fits(hunk, file.text) for hunk in change.hunks):
        raise ValueError(f"the patch does not fit {change.old} at its commit")
    return change.hunks


def unseen(
    edits: Mapping[str, Sequence[range]], shown: Mapping[str, Sequence[range]]
) -> str:
    """The first file with an edit outside what is shown of it; empty if there is none."""
    for path, wanted in edits.items():
        seen = {line for region in shown.get(path, ()) for line in region}
        if path not in shown or not all(seen.issuperset(lines) for lines in wanted):
            return path
    return ""
