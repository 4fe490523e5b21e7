"""The files of a new plugin, from the templates beside this module."""

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
"""What the names of distributions begin with."""


def kinds() -> list[str]:
    """The kinds of plugins that there are templates for."""
    return sorted(path.name for path in TEMPLATES.iterdir() if path.name != COMMON)


def write_plugin(name: str, kind: str, to: Path, taken: Collection[str] = ()) -> Path:
    """Writes a distribution whose tests pass.

    Args:
        name: What recipes will say in `use`: lower-case words with hyphens.
        kind: One of `kinds()`.
        to: Where the distribution's directory is made.
        taken: Names that plugins of the kind have already.

    Returns:
        That directory.

    Raises:
        RecipeError: There is no such kind, the name is none or taken, or the directory
            is there.
    """
    if kind not in kinds():
        raise RecipeError(
            f"There is no template for {kind!r}.",
            hint=f"There are: {', '.join(kinds())}.",
        )
    name = name.removeprefix(PREFIX)
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise RecipeError(
            f"{name!r} is no name for a plugin.",
            hint="It takes lower-case words with hyphens between them, such as my-model.",
        )
    if name in taken:
        raise RecipeError(
            f"There is a {kind} {name!r} already; recipes could not tell them apart.",
            hint="Choose another name; `swebench-train plugins` lists those that are taken.",
        )
    folder = to / f"{PREFIX}{name}"
    if folder.exists():
        raise RecipeError(
            f"{folder} is there already; nothing is overwritten.",
            hint="Choose another directory with --to.",
        )
    words = _words(name)
    for root in (TEMPLATES / COMMON, TEMPLATES / kind):
        for template in sorted(root.rglob("*.txt")):
            _write(template, folder / template.relative_to(root).parent, words)
    return folder


def _write(template: Path, to: Path, words: Mapping[str, str]) -> None:
    # .txt: no tool takes templates for code.
    target = to / template.stem.replace("module", words["module"])
    target.parent.mkdir(parents=True, exist_ok=True)
    text = Template(template.read_text(encoding="utf-8")).substitute(words)
    target.write_text(text, encoding="utf-8")


def _words(name: str) -> dict[str, str]:
    """What stands for `$words` in the templates."""
    return {
        "name": name,
        "distribution": f"{PREFIX}{name}",
        "module": f"{PREFIX}{name}".replace("-", "_"),
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "compatible": compatible(__version__),
    }


def compatible(version: str) -> str:
    """The versions of swebench-trainer for which a plugin of today is written."""
    major, minor = map(int, version.split(".")[:2])
    return f">={major}.{minor},<{f'0.{minor + 1}' if major == 0 else major + 1}"
