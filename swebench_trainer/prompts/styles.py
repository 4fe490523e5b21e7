"""Prompt styles: what the model reads."""

from __future__ import annotations

import hashlib
import re

from swebench_trainer.contracts import Material, Prompt, Tree
from swebench_trainer.prompts.files import Text, read_file
from swebench_trainer.prompts.patches import read_patch
from swebench_trainer.recipe.models import PromptTable
from swebench_trainer.types import Instance

_INSTRUCTIONS = {
    "diff": (
        "Answer with a unified diff as `git diff` prints it, with paths from the root "
        "of the repository behind `a/` and `b/`, and with nothing around it."
    ),
    "search-replace": (
        "Answer with blocks that each change consecutive lines of one file, and with "
        "nothing around them. A block is the path of the file, `<<<<<<< SEARCH`, the "
        "lines as they stand, `=======`, the lines that replace them, and `>>>>>>> "
        "REPLACE`, with the path and each marker on a line of its own. Search for "
        "whole lines that stand only once in the file. To create a file, leave the "
        "lines to search for empty."
    ),
}


class IssueStyle:
    """The issue alone."""

    context = "issue"

    def __init__(self, table: PromptTable) -> None:
        del table  # the answer's form is learned from the examples

    def render(self, instance: Instance, material: Material) -> Prompt:
        """The issue in one fixed sentence before and one behind it."""
        del material  # it shows no files
        return Prompt(ask(instance))


def ask(instance: Instance) -> str:
    """The issue, with what SWE-bench Pro says beside it, and what is asked for."""
    statement = instance.problem_statement
    if instance.requirements:
        statement += f"\n\nRequirements:\n{instance.requirements}"
    if instance.interface:
        statement += f"\n\nNew interfaces introduced:\n{instance.interface}"
    return (
        f"Given the following GitHub issue in repository {instance.repo}:\n\n"
        f"{statement}\n\nGenerate a patch to fix this issue."
    )


class OracleStyle:
    """The issue with the files that the gold patch touches.

    It tells the model where to look, so its results are no leaderboard results.
    """

    context = "oracle"

    def __init__(self, table: PromptTable) -> None:
        self._instructions = _INSTRUCTIONS[table.answer]

    def render(self, instance: Instance, material: Material) -> Prompt:
        """The issue, the files in an order of the instance's own, and the answer's form.

        Raises:
            ValueError: The repository's files cannot be had, one is missing, or is not
                UTF-8 text.
        """
        tree = material.tree()
        paths = {change.old for change in read_patch(instance.patch) if change.old}

        def shuffled(path: str) -> bytes:
            key = f"{instance.instance_id}\0{path}"
            return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()

        texts = {path: _text(tree, path) for path in sorted(paths, key=shuffled)}
        files = [_show(path, text) for path, text in texts.items()]
        return Prompt(
            "\n\n".join((ask(instance), *files, self._instructions)),
            {path: (range(len(text.lines)),) for path, text in texts.items()},
        )


def _text(tree: Tree, path: str) -> Text:
    file = read_file(tree, path)
    if file is None:
        raise ValueError(f"the repository has no file {path}")
    return file.text


def _show(path: str, text: Text) -> str:
    content = str(Text(text.lines))
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} is not UTF-8 text") from error
    # A fence longer than any in the file cannot be closed by the file.
    ticks = max(map(len, re.findall(r"`{3,}", content)), default=2) + 1
    return f"{path}\n{'`' * ticks}\n{content}{'`' * ticks}"
