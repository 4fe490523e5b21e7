"""The pairs that a recipe would make of a run, without writing any."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.errors import PluginFault, RecipeError, StageError
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.stages import pairs
from swebench_trainer.stages.graph import open_context, stages_of
from swebench_trainer.store.rundir import RunDir


def rehearse(plugins: Plugins, recipe: Recipe, runs_dir: Path) -> pairs.Preferences:
    """Makes the pairs of a run from its earlier stages; the run stays as it is.

    Args:
        plugins: With what the recipe names.
        recipe: A valid one; its `[pairs]` need not be those of the run.
        runs_dir: Where run directories are.

    Raises:
        RecipeError: The recipe makes no pairs.
        StageError: The run, or a stage that pairs are made from, is not there.
        PluginFault: The strategy, or a hook that drops pairs, misbehaves.
        DataError: The files of a repository are no longer where they were.
    """
    if recipe.pairs is None:
        raise RecipeError("This recipe has no [pairs].", hint="Add the table.")
    run = RunDir(runs_dir / recipe.name)
    stages = {stage.name: stage for stage in stages_of(recipe)}
    reads = [name for name in stages["pairs"].reads if name in stages]
    for name in reads:
        if not run.stage(name).finished():
            raise StageError(
                f"{run.path}: stage {name} is not done, and pairs are made from it.",
                hint=f"First: swebench-train run RECIPE --until {reads[-1]}",
            )
    context = open_context("pairs", recipe, run, plugins)
    try:
        return pairs.prefer(context)
    except PluginFault as fault:  # its hint speaks of an attempt, which this is not
        raise PluginFault(
            fault.message,
            hint="`swebench-train run RECIPE --only pairs` leaves a log with the "
            "traceback, for the plugin's author.",
        ) from fault
