"""The one family of errors that print a paragraph and a next step.

Everything that a user can cause or mend is raised as a `TrainerError`; the
command line prints it without a traceback. Any other exception is a bug of ours
and keeps its traceback.
"""

from __future__ import annotations


class TrainerError(Exception):
    """Something a user can understand and act on.

    Args:
        message: What went wrong, in a sentence or a short paragraph.
        hint: The next step, usually a command or a recipe key.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class RecipeError(TrainerError):
    """The recipe or the command line asks for something that does not exist."""

    exit_code = 2


class PluginError(TrainerError):
    """A plugin is missing, broken, or clashes with another."""

    exit_code = 2


class PluginFault(PluginError):
    """A plugin has raised, or returned, what its contract does not allow."""

    exit_code = 1


class PrerequisiteError(TrainerError):
    """The machine lacks something; the hint is the command that mends it."""

    exit_code = 3


class DataError(TrainerError):
    """An input file cannot be used; the message names the file and the line."""


class StageError(TrainerError):
    """A stage cannot finish; what it has done so far is kept."""


class UnusableInstance(ValueError):
    """An instance cannot be used, and is dropped with the reason.

    Args:
        reason: The cause, in the same words for every instance with this cause.
        detail: Details of this instance.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail
