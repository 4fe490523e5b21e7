"""Errors with a message and a next step for the user.

Everything that a user can cause or fix is raised as a `TrainerError`; the command
line prints it without a traceback. Any other exception is a bug and keeps its
traceback.
"""

from __future__ import annotations

from pathlib import Path


class TrainerError(Exception):
    """An error that a user can understand and act on.

    Args:
        message: What happened, in a sentence or a short paragraph.
        hint: The next step, usually a command or a recipe key.
        details: File with more details, which the hint names.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, hint: str = "", details: Path | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class RecipeError(TrainerError):
    """The recipe or the command line is invalid."""

    exit_code = 2


class PluginError(TrainerError):
    """A plugin is missing or broken, or conflicts with another."""

    exit_code = 2


class PluginFault(PluginError):
    """A plugin violated its contract: it raised an error or returned a wrong value."""

    exit_code = 1


class PrerequisiteError(TrainerError):
    """The machine lacks a prerequisite; the hint is the command that fixes it."""

    exit_code = 3


class DataError(TrainerError):
    """An input file is invalid; the message names the file and the line."""


class StageError(TrainerError):
    """A stage cannot finish; what it has done so far is kept."""


def library_message(error: BaseException) -> str:
    """Text of a third-party library's error, for matching.

    Our own errors are distinguished by type, and no code looks into their text. Some
    libraries report a condition only in words, such as torch that memory ran out.
    """
    assert not isinstance(error, TrainerError)
    return str(error)


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
