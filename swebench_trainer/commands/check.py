"""`swebench-train check`."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.commands.inputs import load_plugins, load_recipe
from swebench_trainer.stages.graph import stages_of


def execute(recipe: Path, overrides: list[str]) -> None:
    """Validates a recipe and prints the stages that it would run."""
    valid, _ = load_recipe(recipe, overrides, load_plugins())
    print(f"{recipe}: valid. Stages: {', '.join(s.name for s in stages_of(valid))}.")
