"""`swebench-train new`."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.recipe.shipped import copy_recipe, shipped_recipes


def execute(name: str | None, folder: Path) -> None:
    """Copies a shipped recipe with its data, or lists the shipped recipes."""
    if name is None:
        for recipe, summary in shipped_recipes().items():
            print(f"{recipe:<28} {summary}")
        return
    copied = copy_recipe(name, folder)
    print(f"Created {copied}. To run it:\nswebench-train {copied}")
