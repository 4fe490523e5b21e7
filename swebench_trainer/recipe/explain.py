"""Error messages for recipes: the position, the problem, and the likely fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from swebench_trainer.recipe.locate import KeyPath, Place
from swebench_trainer.recipe.models import Recipe, Table

TableModels = Mapping[str, Mapping[str, type[Table]]]
"""Models by table and, for tables that name a plugin, by the value of `use` (else `""`)."""


@dataclass(frozen=True)
class Origin:
    """Where a key was written: a place in a file, or an option of the command line.

    Attributes:
        name: The file's path as given by the user, or the option.
        line: The text of the line, or the option's value.
    """

    name: str
    line: str
    place: Place | None = None


@dataclass(frozen=True)
class Problem:
    """One problem, at one key."""

    path: KeyPath
    message: str
    hint: str = ""


def show(problems: Iterable[Problem], origins: Mapping[KeyPath, Origin]) -> str:
    """Format all problems, each with `file:line:col`, the line and a caret."""
    placed = [(_origin(problem.path, origins), problem) for problem in problems]
    placed.sort(key=lambda item: _order(item[0]))
    return "\n\n".join("\n".join(_block(*item)) for item in placed)


def _order(origin: Origin) -> tuple[str, int, int]:
    """Sort by position in the files; problems without a position come first."""
    if origin.place is None:
        return ("", 0, 0)
    return (origin.name, origin.place.line, origin.place.column)


def _block(origin: Origin, problem: Problem) -> list[str]:
    hint = [f"  = {problem.hint}"] if problem.hint else []
    if origin.place is None:
        where = f"{origin.name} {origin.line}".rstrip()
        return [f"{where}: {problem.message}", *hint]
    place = origin.place
    number = f"{place.line:4}"
    return [
        f"{origin.name}:{place.line}:{place.column}: {problem.message}",
        f"{number} | {origin.line}",
        f"{' ' * len(number)} | {' ' * (place.column - 1)}{'^' * place.width}",
        *hint,
    ]


def _origin(path: KeyPath, origins: Mapping[KeyPath, Origin]) -> Origin:
    """The origin of a key, or of the innermost table around it that has one."""
    while path not in origins:  # the recipe itself has the empty path
        path = path[:-1]
    return origins[path]


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    tables: TableModels,
    at: KeyPath = (),
) -> list[Problem]:
    """Translate pydantic's errors into problems. `at` is the model's path in the recipe."""
    found: dict[KeyPath, Problem] = {}
    for detail in error.errors():
        problem = _problem(detail, model, tables, at)
        inside = any(path[: len(problem.path)] == problem.path for path in found)
        # Of the members of a union, the deepest error is the most specific.
        if not inside:
            for end in range(len(at) + 1, len(problem.path)):
                found.pop(problem.path[:end], None)
            found[problem.path] = problem
    return list(found.values())


_WORDS = {
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "model_type": "must be a table: { … }",
    "model_attributes_type": "must be a table: { … }",
    "string_pattern_mismatch": "has an invalid format, or characters that are not allowed",
}
"""Messages for some of pydantic's error types."""


def _problem(
    detail: ErrorDetails, model: type[BaseModel], tables: TableModels, at: KeyPath
) -> Problem:
    loc = _without_union_tags(model, detail["loc"])
    path = at + loc
    if detail["type"] == "extra_forbidden":
        return unknown_key(path, _model_at(model, loc[:-1]), tables)
    name = ".".join(path)
    if detail["type"] == "missing":
        kind = "table" if path[0] in tables and len(path) == 1 else "key"
        return Problem(path, f"{kind} {name!r} is missing")
    message = _WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    return Problem(path, f"{name}: {message[0].lower()}{message[1:]}")


def _without_union_tags(model: type[BaseModel], loc: tuple[int | str, ...]) -> KeyPath:
    """The keys of a location, without the union members that pydantic inserts."""
    keys: list[str] = []
    for number, part in enumerate(map(str, loc), start=1):
        inner = _model_at(model, tuple(keys))
        is_key = not keys or ("[" not in part and part != inner.__name__)
        if part in inner.model_fields or (number == len(loc) and is_key):
            keys.append(part)
    return tuple(keys)


def _model_at(model: type[BaseModel], loc: KeyPath) -> type[BaseModel]:
    """The model that validates the inline table at `loc`."""
    for part in loc:
        spec = model.model_fields.get(part)
        inner = spec.annotation if spec else None
        for kind in (inner, *getattr(inner, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return model


def unknown_key(path: KeyPath, model: type[BaseModel], tables: TableModels) -> Problem:
    """The problem of a key or table that does not exist, with a suggestion."""
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
    close = difflib.get_close_matches(name, known, 1)
    in_place = close and len(path) > 2  # keys of inline tables belong nowhere else
    if homes and not in_place:
        return Problem(path, what, f"{name!r} belongs to [{'] or ['.join(homes)}]")
    if close:
        return Problem(path, what, f"did you mean {close[0]!r}?")
    return Problem(path, what, f"known keys: {', '.join(known)}")
