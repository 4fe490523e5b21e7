"""Reasons for which an answer is refused that other code acts on.

All are `ValueError`, as is every refusal of an answer. Their messages are for people;
code that needs to tell refusals apart uses the types.
"""

from __future__ import annotations


class NothingChangesError(ValueError):
    """The answer is readable and leaves every file as it was."""

    def __init__(self) -> None:
        super().__init__("nothing changes")


class NoPlaceError(ValueError):
    """No file, or no place in a file, fits a hunk."""


class AmbiguousError(ValueError):
    """A hunk fits several places in a file."""
