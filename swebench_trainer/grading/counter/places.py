"""What the languages have in common: places where a test can be changed."""

from __future__ import annotations

from dataclasses import dataclass

VARIETY = 6
"""Number of values for one place."""


@dataclass(frozen=True)
class Place:
    """A line that can be replaced, so that a test fails.

    Attributes:
        test: Identifies the changed test within the instance.
        names: The expected tests that fail then, as the log parser reports them.
        number: The line in the file after the test patch.
        texts: Lines to choose from.
    """

    test: str
    path: str
    names: tuple[str, ...]
    number: int
    texts: tuple[str, ...]
