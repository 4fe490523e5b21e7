"""Errors of reading the files of a repository."""

from __future__ import annotations

from swebench_trainer.errors import UnusableInstance


class UnavailableError(UnusableInstance):
    """The machine, the network or the recipe is at fault, not the row; a retry may help."""
