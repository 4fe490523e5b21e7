"""The recipes that travel in the wheel."""

from __future__ import annotations

import shutil
from pathlib import Path

from swebench_trainer.errors import RecipeError

_PACKAGE = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """Where the shipped recipes are: in the installed package, else in the checkout."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def shipped_recipes() -> dict[str, str]:
    """Names of the shipped recipes, each with the first line of its own comment."""
    return {
        path.stem: path.read_text(encoding="utf-8").split("\n")[0].lstrip("# ")
        for path in sorted(folder().glob("*.toml"))
    }


def copy_recipe(name: str, to: Path) -> Path:
    """Copies a recipe, and the directory of the same name if there is one.

    Raises:
        RecipeError: There is no such recipe, or the copy would overwrite a file.
    """
    source = folder() / f"{name}.toml"
    if name not in shipped_recipes():
        raise RecipeError(
            f"There is no shipped recipe {name!r}.",
            hint=f"There are: {', '.join(shipped_recipes())}.",
        )
    target = to / source.name
    data = folder() / name
    for path in (target, to / name):
        if path.exists():
            raise RecipeError(
                f"{path} is there already; nothing is overwritten.",
                hint="Choose another directory with --to.",
            )
    to.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    if data.is_dir():
        shutil.copytree(data, to / name)
    return target
