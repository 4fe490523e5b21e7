"""Loads what commands work on: plugins, recipes, and data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from swebench_trainer import __version__, builtin
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.load import Draft, read_draft, validate
from swebench_trainer.recipe.models import DataTable, Recipe

if TYPE_CHECKING:
    from rich.console import Console

    from swebench_trainer.contracts import Source


def load_plugins() -> Plugins:
    """The built-in plugins; installed ones are loaded when a recipe names them."""
    return Plugins({"builtin": builtin})


def show_progress(plugins: Plugins, console: Console) -> None:
    """Shows the events of a run on a console."""
    from swebench_trainer.progress import ConsoleObserver

    plugins.add(ConsoleObserver(console), "console", f"swebench-trainer {__version__}")


def load_recipe(
    path: Path, overrides: list[str], plugins: Plugins
) -> tuple[Recipe, Draft]:
    """A validated recipe, and the draft that it was made from.

    Args:
        path: The recipe's file.
        overrides: `table.key=value`, as given to `--set`.
        plugins: Where the plugins that it names are looked up.

    Raises:
        RecipeError: The recipe is invalid; the message lists every error.
        PluginError: A plugin that it names cannot be used.
    """
    draft = read_draft(path, overrides)
    return validate(draft, plugins.tables(draft.uses())), draft


def open_source(plugins: Plugins, data: str, split: str) -> Source:
    """The source that `--data` names: a task repo, a file of rows, or a Hub dataset."""
    use = "task-repo" if Path(data).is_dir() else "rows"
    values = {"use": use, "path": data}
    if use == "rows":
        values["split"] = split
    table = plugins.registry.config(DataTable, use).model_validate(values)
    return plugins.registry.create(table)


def open_recipe(path: Path, overrides: list[str]) -> tuple[Plugins, Recipe, Draft]:
    """A validated recipe for a run, with all plugins; they may observe and drop.

    See `load_recipe`.
    """
    plugins = load_plugins()
    recipe, draft = load_recipe(path, overrides, plugins)
    plugins.load_installed()
    return plugins, recipe, draft
