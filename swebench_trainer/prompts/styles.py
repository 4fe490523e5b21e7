"""The issue text of every prompt, and the style that shows only the issue."""

from __future__ import annotations

from swebench_trainer.contracts import Prompt, PromptInputs
from swebench_trainer.recipe.models import PromptTable
from swebench_trainer.types import Instance

INSTRUCTIONS = {
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
"""Instructions about the answer format, for prompts that show files."""


class IssueStyle:
    """Only the text of the issue."""

    context = "issue"

    def __init__(self, table: PromptTable) -> None:
        del table  # the answer format is learned from the examples

    def render(self, instance: Instance, material: PromptInputs) -> Prompt:
        """The issue between two fixed sentences."""
        del material  # it shows no files
        return Prompt(ask(instance))


def ask(instance: Instance) -> str:
    """The issue, SWE-bench Pro's requirements and interface, and the task."""
    statement = instance.problem_statement
    if instance.requirements:
        statement += f"\n\nRequirements:\n{instance.requirements}"
    if instance.interface:
        statement += f"\n\nNew interfaces introduced:\n{instance.interface}"
    return (
        f"Given the following GitHub issue in repository {instance.repo}:\n\n"
        f"{statement}\n\nGenerate a patch to fix this issue."
    )
