"""Why the files of a repository cannot be had."""

from __future__ import annotations


class UnavailableError(ValueError):
    """Not the row is to blame but the machine, the network or the recipe: try again."""
