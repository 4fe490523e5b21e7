"""Clones, read without a checkout."""

from __future__ import annotations

from swebench_trainer.contracts import Tree


class Repositories:
    """Clones."""

    def __init__(self, location: str) -> None:
        self.location = location

    def tree(self, repo: str, commit: str) -> Tree:
        """The files of a commit."""
        raise ValueError(f"no clone of {repo} at {commit} yet")

    def close(self) -> None:
        """Ends the programs that read."""
