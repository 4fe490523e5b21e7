"""Images, read without a start."""

from __future__ import annotations

from swebench_trainer.contracts import Tree
from swebench_trainer.types import Instance


class ImageTrees:
    """Images."""

    def tree(self, instance: Instance) -> Tree:
        """The files of an image."""
        raise ValueError(f"no files of {instance.image} yet")

    def close(self) -> None:
        """Ends the programs that read."""
