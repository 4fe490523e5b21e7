"""The recipes that are part of the wheel."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

from swebench_trainer.errors import RecipeError

_PACKAGE = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """The directory of the shipped recipes: in the installed package, or the checkout."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def shipped_recipes() -> dict[str, str]:
    """Names of the shipped recipes, each with the summary in its first line."""
    return {path.stem: _summary(path) for path in sorted(folder().glob("*.toml"))}


def _summary(recipe: Path) -> str:
    with recipe.open(encoding="utf-8") as file:
        return file.readline().partition(".toml ")[2].strip()


def copy_recipe(name: str, to: Path) -> Path:
    """Copy a recipe, the recipes that it extends, and its data directory.

    Raises:
        RecipeError: The recipe does not exist, or a copy would overwrite a file.
    """
    if name not in shipped_recipes():
        raise RecipeError(
            f"No shipped recipe is called {name!r}.",
            hint=f"Shipped recipes: {', '.join(shipped_recipes())}.",
        )
    recipe, data = folder() / f"{name}.toml", folder() / name
    # An identical base recipe from an earlier copy can stay.
    files = [
        source
        for source in _with_bases(recipe)
        if source == recipe or not _is_copied(source, to)
    ]
    targets = [to / source.relative_to(folder()) for source in files]
    for target in (*targets, to / name):
        if target.exists():
            raise RecipeError(
                f"{target} already exists; nothing was overwritten.",
                hint="Choose another directory with --to.",
            )
    for source, target in zip(files, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    if data.is_dir():
        shutil.copytree(data, to / name)
    return targets[0]


def _with_bases(recipe: Path) -> Iterator[Path]:
    """A recipe and the recipes that it extends, directly or indirectly."""
    yield recipe
    base = tomllib.loads(recipe.read_text(encoding="utf-8")).get("extends")
    if base:
        yield from _with_bases(recipe.parent / base)


def _is_copied(source: Path, to: Path) -> bool:
    target = to / source.relative_to(folder())
    return target.is_file() and target.read_bytes() == source.read_bytes()
