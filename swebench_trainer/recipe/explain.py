"""From a wrong recipe to a text that says where, what, and what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from swebench_trainer.recipe.locate import KeyPath, Place
from swebench_trainer.recipe.models import Recipe, Table

TableModels = Mapping[str, Mapping[str, type[Table]]]
"""Models by table and, for tables that name a plugin, by what `use` says (else `""`)."""


@dataclass(frozen=True)
class Origin:
    """Where a key was written: a place in a file, or an option of the command line.

    Attributes:
        name: The file as the user named it, or the option.
        line: The text of the line, or the option's value.
    """

    name: str
    line: str
    place: Place | None = None


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at one key."""

    path: KeyPath
    message: str
    hint: str = ""


def show(problems: Iterable[Problem], origins: Mapping[KeyPath, Origin]) -> str:
    """All problems as text, each with `file:line:col`, the line and a caret."""
    blocks = []
    for problem in problems:
        origin = _origin(problem.path, origins)
        blocks.append("\n".join(_block(problem, origin)))
    return "\n\n".join(blocks)


def _block(problem: Problem, origin: Origin | None) -> list[str]:
    hint = [f"  = {problem.hint}"] if problem.hint else []
    if origin is None:
        return [problem.message, *hint]
    if origin.place is None:
        return [f"{origin.name} {origin.line}: {problem.message}", *hint]
    place = origin.place
    number = f"{place.line:4}"
    return [
        f"{origin.name}:{place.line}:{place.column}: {problem.message}",
        f"{number} | {origin.line}",
        f"{' ' * len(number)} | {' ' * (place.column - 1)}{'^' * place.width}",
        *hint,
    ]


def _origin(path: KeyPath, origins: Mapping[KeyPath, Origin]) -> Origin | None:
    """The origin of a key, or of the nearest table around it."""
    while path and path not in origins:
        path = path[:-1]
    return origins.get(path)


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    tables: TableModels,
    at: KeyPath = (),
) -> list[Problem]:
    """What pydantic found, in a recipe's words. `at` is where the model stands."""
    return [_problem(detail, model, tables, at) for detail in error.errors()]


def _problem(
    detail: ErrorDetails, model: type[BaseModel], tables: TableModels, at: KeyPath
) -> Problem:
    path = at + tuple(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return unknown_key(path, _model_at(model, detail["loc"][:-1]), tables)
    name = ".".join(path)
    if detail["type"] == "missing":
        kind = "table" if path[0] in tables and len(path) == 1 else "key"
        return Problem(path, f"{kind} {name!r} is missing")
    message = detail["msg"].removeprefix("Value error, ")
    return Problem(path, f"{name}: {message[0].lower()}{message[1:]}")


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that the inline table at `loc` is validated by."""
    for part in loc:
        spec = model.model_fields.get(str(part))
        inner = spec.annotation if spec else None
        for kind in (inner, *getattr(inner, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return model


def unknown_key(path: KeyPath, model: type[BaseModel], tables: TableModels) -> Problem:
    """A key or a table that does not exist, with what was probably meant."""
    name = path[-1]
    if len(path) == 1:
        known = list(Recipe.model_fields)
        what = f"a recipe has no table or key {name!r}"
    else:
        known = list(model.model_fields)
        what = f"[{'.'.join(path[:-1])}] has no key {name!r}"
    homes = [
        table
        for table, models in tables.items()
        if table != path[0] and any(name in m.model_fields for m in models.values())
    ]
    if homes:
        return Problem(path, what, f"{name!r} belongs to [{'] or ['.join(homes)}]")
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return Problem(path, what, f"did you mean {close[0]!r}?")
    return Problem(path, what, f"there are: {', '.join(known)}")
