"""Errors of answers that other code handles differently from the rest.

Every refusal of an answer is a `ValueError` with a message for people. Code that needs
to distinguish refusals catches one of these types.
"""

from __future__ import annotations


class NothingChangesError(ValueError):
    """The answer has no patch, or leaves every file as it was."""

    def __init__(self, reason: str = "the answer changes nothing") -> None:
        super().__init__(reason)


class NoPlaceError(ValueError):
    """A hunk fits nowhere: no file, or no place in its file."""


class AmbiguousError(ValueError):
    """A hunk fits several places in its file."""


class UnclearAnswerError(ValueError):
    """Draft and answer cannot be told apart."""

    def __init__(self) -> None:
        super().__init__("a draft and the answer cannot be told apart")
