"""Why the files of a repository are unavailable."""

from __future__ import annotations

from swebench_trainer.errors import UnusableInstance


class Unavailable(UnusableInstance):
    """The machine, the network or the recipe is at fault, not the row: try again."""
