"""`swebench-train pairs`: preference pairs of a run, counted and shown."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.commands import run as run_command
from swebench_trainer.commands.inputs import open_recipe
from swebench_trainer.errors import PluginFault, RecipeError, StageError
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.reporting.console import open_console
from swebench_trainer.reporting.pairs import print_pairs, to_show
from swebench_trainer.stages import pairs
from swebench_trainer.stages.graph import open_context, stages_of
from swebench_trainer.store.rundir import RunDir


def execute(
    recipe: Path,
    overrides: list[str],
    runs_dir: Path,
    *,
    dry_run: bool,
    number: int,
    lines: int,
) -> None:
    """Makes a run's pairs, prints some of them and the figures of all.

    Args:
        recipe: The recipe's file.
        overrides: `table.key=value`, as given to `--set`.
        runs_dir: Directory that contains the run directories.
        dry_run: Whether to leave the run unchanged.
        number: Number of pairs to show.
        lines: Lines per answer to show; 0 shows all.
    """
    if not dry_run:
        only_pairs = run_command.StageChoice(only="pairs")
        run_command.execute(recipe, overrides, runs_dir, only_pairs, report=False)
    plugins, valid, _ = open_recipe(recipe, overrides)
    made = make_pairs(plugins, valid, runs_dir)
    print_pairs(open_console(), made.stats, to_show(made.pairs, number), lines)


def make_pairs(plugins: Plugins, recipe: Recipe, runs_dir: Path) -> pairs.Preferences:
    """Makes pairs from the finished stages of a run, without writing to the run.

    Args:
        plugins: Plugins that the recipe names.
        recipe: A validated recipe; its `[pairs]` may differ from the run's.
        runs_dir: Directory that contains the run directories.

    Raises:
        RecipeError: The recipe has no `[pairs]`.
        StageError: The run, or a stage that pairs are made from, is missing.
        PluginFault: The strategy, or a hook that drops pairs, failed.
        DataError: Files of a repository are missing.
    """
    if recipe.pairs is None:
        raise RecipeError("This recipe has no [pairs].", hint="Add a [pairs] table.")
    run = RunDir(runs_dir / recipe.name)
    stages = {stage.name: stage for stage in stages_of(recipe)}
    reads = [name for name in stages["pairs"].reads if name in stages]
    for name in reads:
        if not run.stage(name).finished():
            raise StageError(
                f"{run.path}: stage {name}, which pairs are made from, has not finished.",
                hint=f"Run it first: swebench-train run RECIPE --until {reads[-1]}",
            )
        run.stage(name).require_unchanged()
    context = open_context("pairs", recipe, run, plugins)
    try:
        return pairs.prefer(context)
    except PluginFault as fault:
        # Its hint names the log of an attempt, and a dry run has none.
        raise PluginFault(
            fault.message,
            hint="For a log with the traceback, for the plugin's author, run "
            "`swebench-train run RECIPE --only pairs`.",
        ) from fault
