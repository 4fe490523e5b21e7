"""Loads what commands work on: plugins, recipes, and data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swebench_trainer import __version__, builtin
from swebench_trainer.errors import DataError
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


@dataclass(frozen=True)
class SourceOptions:
    """What `--data` and the options that belong to it name.

    Attributes:
        data: A task repo's directory, a file of rows, a Hub dataset, or an alias.
        split: Split of a Hub dataset.
        scripts: SWE-bench Pro's evaluation repository, if the rows are Pro's.
        digests: JSON file with the digests of SWE-bench Pro's images.
    """

    data: str
    split: str = "test"
    scripts: str | None = None
    digests: Path | None = None


def open_source(plugins: Plugins, options: SourceOptions) -> Source:
    """The source that the options name.

    Raises:
        DataError: An option for SWE-bench Pro does not fit the data.
    """
    values: dict[str, object] = {"path": options.data}
    folder = Path(options.data).is_dir()
    if options.scripts is not None and not folder:
        values |= {"scripts": options.scripts, "digests": options.digests}
    elif options.scripts is not None or options.digests is not None:
        raise DataError(
            "--scripts and --digests are for rows of SWE-bench Pro.",
            hint="Name the rows with --data and the evaluation repository with --scripts.",
        )
    if not folder:
        values["split"] = options.split
    use = "task-repo" if folder else "swebench-pro" if options.scripts else "rows"
    table = plugins.registry.config(DataTable, use).model_validate(
        {"use": use, **values}
    )
    return plugins.registry.create(table)


def open_recipe(path: Path, overrides: list[str]) -> tuple[Plugins, Recipe, Draft]:
    """A validated recipe for a run, with all plugins; they may observe and drop.

    See `load_recipe`.
    """
    plugins = load_plugins()
    recipe, draft = load_recipe(path, overrides, plugins)
    plugins.load_installed()
    return plugins, recipe, draft
