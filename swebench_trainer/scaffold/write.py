"""Writes the files of a new plugin from templates."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from string import Template

from swebench_trainer import __version__
from swebench_trainer.errors import RecipeError

TEMPLATES = Path(__file__).parent / "templates"
COMMON = "common"
PREFIX = "swebench-trainer-"
"""Prefix of distribution names."""


def kinds() -> list[str]:
    """The kinds of plugins that have templates."""
    return sorted(path.name for path in TEMPLATES.iterdir() if path.name != COMMON)


def write_plugin(name: str, kind: str, to: Path, taken: Collection[str] = ()) -> Path:
    """Write a distribution whose tests pass.

    Args:
        name: Value of `use` in recipes: lowercase words with hyphens.
        kind: One of `kinds()`.
        to: Parent of the distribution's directory.
        taken: Names of installed plugins of this kind.

    Returns:
        The distribution's directory.

    Raises:
        RecipeError: The kind does not exist, the name is invalid or taken, or the
            directory exists.
    """
    if kind not in kinds():
        raise RecipeError(
            f"Unknown kind of plugin: {kind!r}.",
            hint=f"Kinds: {', '.join(kinds())}.",
        )
    name = name.removeprefix(PREFIX)
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise RecipeError(
            f"{name!r} is not a valid plugin name.",
            hint="Use lowercase words joined by hyphens, such as my-model.",
        )
    if name in taken:
        raise RecipeError(
            f"A {kind} called {name!r} is already installed.",
            hint="Choose another name; `swebench-train plugins` lists the installed ones.",
        )
    folder = to / f"{PREFIX}{name}"
    if folder.exists():
        raise RecipeError(
            f"{folder} already exists; nothing was overwritten.",
            hint="Choose another directory with --to.",
        )
    words = _words(name)
    for root in (TEMPLATES / COMMON, TEMPLATES / kind):
        for template in sorted(root.rglob("*.txt")):
            _write(template, folder / template.relative_to(root).parent, words)
    return folder


def _write(template: Path, to: Path, words: Mapping[str, str]) -> None:
    # Templates end in .txt so that no tool treats them as code.
    target = to / template.stem.replace("module", words["module"])
    target.parent.mkdir(parents=True, exist_ok=True)
    text = Template(template.read_text(encoding="utf-8")).substitute(words)
    target.write_text(text, encoding="utf-8")


def _words(name: str) -> dict[str, str]:
    """The values of `$names` in the templates."""
    return {
        "name": name,
        "distribution": f"{PREFIX}{name}",
        "module": f"{PREFIX}{name}".replace("-", "_"),
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "compatible": compatible(__version__),
    }


def compatible(version: str) -> str:
    """The versions of swebench-trainer that a plugin written for `version` supports."""
    major, minor = map(int, version.split(".")[:2])
    return f">={major}.{minor},<{f'0.{minor + 1}' if major == 0 else major + 1}"
