"""Which lines of the repository an answer is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from swebench_trainer.answers.blocks import unique_hunks
from swebench_trainer.answers.forms import AnswerForm
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.files import Text
from swebench_trainer.patches.strict_diff import FileChange, Hunk, fitted
from swebench_trainer.types import Instance


def gold_edits(
    form: AnswerForm, instance: Instance, tree: Tree, context: int | None = None
) -> dict[str, tuple[range, ...]]:
    """The old lines that the gold patch quotes when it is written as an answer.

    Args:
        form: Form of the answer.
        instance: Whose gold patch it is.
        tree: The repository's files.
        context: See `render_answer`.

    Returns:
        By path, the ranges of line indexes that SEARCH texts or hunks take; none for a
        file that is only deleted or moved. New files are not in it.

    Raises:
        ValueError: The patch does not fit the files.
    """
    changes, old = fitted(instance.patch, tree)
    return {
        change.old: tuple(
            range(hunk.start, hunk.end)
            for hunk in _hunks(form, change, old[change.old].text, context)
        )
        for change in changes
        if change.old
    }


def _hunks(
    form: AnswerForm, change: FileChange, text: Text, context: int | None
) -> Iterable[Hunk]:
    if form == "diff":
        return change.hunks
    # Of a file that goes, the answer names it and quotes nothing.
    return unique_hunks(change, text, context) if change.new else ()


def unseen(
    edits: Mapping[str, Sequence[range]], shown: Mapping[str, Sequence[range]]
) -> str:
    """The first file with an edit outside what is shown of it; empty if there is none."""
    for path, wanted in edits.items():
        seen = {line for region in shown.get(path, ()) for line in region}
        if path not in shown or not all(seen.issuperset(lines) for lines in wanted):
            return path
    return ""
