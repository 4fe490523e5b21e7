"""Which lines of the repository an answer quotes, and whether a prompt shows them."""

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
    """The old lines that the gold patch quotes in an answer format.

    Args:
        form: Answer format.
        instance: The instance with the gold patch.
        tree: The repository's files.
        context: See `render_answer`.

    Returns:
        The ranges of line indexes of the SEARCH texts or hunks, by path; no ranges for
        a file that is only deleted or moved. New files and submodules are left out.

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
        if change.old in old
    }


def _hunks(
    form: AnswerForm, change: FileChange, text: Text, context: int | None
) -> Iterable[Hunk]:
    if form == "diff":
        return change.hunks
    # The answer names a deleted file without quoting it.
    return unique_hunks(change, text, context) if change.new else ()


def first_unshown_edit(
    edits: Mapping[str, Sequence[range]], shown: Mapping[str, Sequence[range]]
) -> str:
    """The first file with an edit outside its shown lines; empty if all are shown."""
    for path, wanted in edits.items():
        seen = {line for region in shown.get(path, ()) for line in region}
        if path not in shown or not all(seen.issuperset(lines) for lines in wanted):
            return path
    return ""
