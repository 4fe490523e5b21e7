"""Reads a recipe: TOML, `extends`, `--set`, and validation that reports every error."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swebench_trainer.errors import RecipeError, library_message
from swebench_trainer.recipe.explain import (
    Origin,
    Problem,
    TableModels,
    problems_of,
    show,
)
from swebench_trainer.recipe.locate import KeyPath, Place, locate
from swebench_trainer.recipe.models import (
    TABLES,
    DpoTable,
    GradeTable,
    PairsTable,
    Recipe,
    Table,
)

Values = dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """A recipe as written: merged, but not validated.

    Attributes:
        path: The recipe file.
        values: The merged values.
        origins: Where each table and key was written.
    """

    path: Path
    values: Values
    origins: Mapping[KeyPath, Origin]

    def folder(self, table: KeyPath) -> Path:
        """The directory where relative paths of a table start.

        This is the directory of the file with the table's `path`, or else with its
        header. For values from `--set` it is the directory of the recipe file.
        """
        origin = self.origins.get((*table, "path")) or self.origins.get(table)
        if origin is None and table[1:]:  # a list item: the list has the place
            return self.folder(table[:-1])
        if origin is None or origin.place is None:
            return self.path.parent
        return Path(origin.name).parent

    def uses(self) -> list[tuple[str, str]]:
        """Each table that names a plugin, with the name: `("grade", "docker")`."""
        tables = [*self.values.items()]
        if isinstance(generate := self.values.get("generate"), dict):
            writers = generate.get("model")
            for writer in writers if isinstance(writers, list) else [writers]:
                tables.append(("model", writer))
        return [
            (name, table["use"])
            for name, table in tables
            if isinstance(table, dict) and isinstance(table.get("use"), str)
        ]


def read_draft(path: Path, overrides: Sequence[str] = ()) -> Draft:
    """Read a recipe file, the recipes that it extends, and `--set` overrides.

    Args:
        path: The TOML file.
        overrides: `table.key=value` each; a value that is not TOML is a string.

    Raises:
        RecipeError: A file cannot be read or is not TOML, or an override is not
            `table.key=value`.
    """
    values, origins = _read_file(path, ())
    origins[()] = Origin(str(path), "")
    for override in overrides:
        key, equals, text = override.partition("=")
        keys = tuple(key.strip().split("."))
        if not equals or not all(keys):
            raise RecipeError(
                f"--set {override}: expected table.key=value.",
                hint="For example: --set sft.learning_rate=1e-4",
            )
        _merge(values, _nested(keys, _toml_value(text)))
        for end in range(1, len(keys) + 1):
            origins.setdefault(keys[:end], Origin("--set", override))
        origins[keys] = Origin("--set", override)
    return Draft(path, values, origins)


def _read_file(
    path: Path, above: tuple[Path, ...]
) -> tuple[Values, dict[KeyPath, Origin]]:
    if path.resolve() in above:
        raise RecipeError(f"{path} extends itself.", hint="Remove one `extends`.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        hint = "`swebench-train new` lists recipes to start from."
        if above:
            hint = f"Correct `extends` in {above[-1]}."
        raise RecipeError(f"Recipe {path} does not exist.", hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(
            f"Cannot read {path}: {reason}.", hint="Expected a TOML file in UTF-8."
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(_syntax_error(path, text, error)) from None
    lines = text.split("\n")
    origins = {
        key: Origin(str(path), lines[place.line - 1], place)
        for key, place in locate(text.replace("\r\n", "\n")).items()
    }
    if "extends" not in values:
        return values, origins
    base = values.pop("extends")
    if not isinstance(base, str):
        problem = Problem(("extends",), "extends: must be the path of a recipe")
        raise RecipeError(show([problem], origins))
    below, below_origins = _read_file(path.parent / base, (*above, path.resolve()))
    _merge(below, values)
    return below, below_origins | origins


def _syntax_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> str:
    lines = text.split("\n")
    # Python 3.14 has attributes for these; in older versions the message ends with them.
    what, _, position = library_message(error).partition(" (at ")
    numbers = map(int, re.findall(r"\d+", position))
    line, column = tuple(numbers) or (len(lines), len(lines[-1]) + 1)
    problem = f"not valid TOML: {what}"
    place = Place(line, column, 1)
    origin = Origin(str(path), lines[line - 1], place)
    return show([Problem(("syntax",), problem)], {("syntax",): origin})


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _nested(keys: KeyPath, value: Any) -> Values:
    for key in reversed(keys):
        value = {key: value}
    return value  # type: ignore[no-any-return]  # a dict after the loop


def _merge(into: Values, values: Values) -> None:
    """Merge `values` into `into`: tables recursively, other values by replacement."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def validate(draft: Draft, tables: TableModels) -> Recipe:
    """Validate every table by the model that its `use` names.

    Raises:
        RecipeError: All problems of the recipe, each with its position.
    """
    return _Validation(draft, tables).recipe()


class _Validation:
    """The tables of a draft that are valid, and the problems of all others."""

    def __init__(self, draft: Draft, tables: TableModels) -> None:
        self._draft = draft
        self._tables = tables
        self._parsed: Values = {}
        self._problems: list[Problem] = []

    def recipe(self) -> Recipe:
        """The recipe; raises a `RecipeError` with all problems if it has any."""
        values = self._draft.values
        for name, value in values.items():
            if name not in self._tables:
                self._parsed[name] = value
            elif isinstance(value, dict):
                self._parse(name, value)
            else:
                what = f"{name} must be a table: write [{name}]"
                self._problems.append(Problem((name,), what))
        self._check_top_level()
        self._problems += broken_rules(values, self._parsed)
        if self._problems:
            raise RecipeError(show(self._problems, self._draft.origins))
        return Recipe.model_validate(self._parsed)

    def _parse(self, name: str, value: Values) -> None:
        writer = value.get("model") if name == "generate" else None
        rest = {k: v for k, v in value.items() if v is not writer}
        table = self._table(name, (name,), rest)
        if writer is not None and table is not None:
            table = table.model_copy(update={"model": self._writer(writer)})
        if table is not None:
            self._parsed[name] = table

    def _check_top_level(self) -> None:
        try:
            Recipe.model_validate(self._parsed, strict=True)
        except ValidationError as error:
            # A table with errors of its own has been reported already.
            reported = self._draft.values.keys() - self._parsed.keys()
            self._problems += [
                problem
                for problem in problems_of(error, Recipe, self._tables)
                if problem.path[0] not in reported
            ]

    def _writer(self, value: Any) -> Table | tuple[Table | None, ...] | None:
        """Validate `[generate] model`: a table like `[model]`, or a list of them."""
        at = ("generate", "model")
        if isinstance(value, dict):
            return self._table("model", at, value)
        writers = value if isinstance(value, list) else []
        if writers and all(isinstance(writer, dict) for writer in writers):
            return tuple(
                self._table("model", (*at, str(number)), writer)
                for number, writer in enumerate(writers, start=1)
            )
        what = 'generate.model must be a table, { use = "…" }, or a list of them'
        self._problems.append(Problem(at, what))
        return None

    def _table(self, name: str, at: KeyPath, value: Values) -> Table | None:
        models = self._tables[name]
        use: Any = ""
        if "" not in models:
            use = value.get("use", TABLES[name].model_fields["use"].default)
            value = {**value, "use": use}
        if not isinstance(use, str) or use not in models:
            self._problems.append(_unknown_plugin(at, use, models))
            return None
        try:
            # Strict JSON mode: a list may become a tuple and a string a path, but not
            # a number.
            return models[use].model_validate_json(
                json.dumps(value, default=str),
                strict=True,
                context={"folder": self._draft.folder(at)},
            )
        except ValidationError as error:
            self._problems += problems_of(error, models[use], self._tables, at)
            return None


def _unknown_plugin(
    at: KeyPath, use: object, models: Mapping[str, type[Table]]
) -> Problem:
    table = ".".join(at)
    if not isinstance(use, str):
        return Problem((*at, "use"), f"[{table}] needs use, the name of a plugin")
    close = difflib.get_close_matches(use, models, 1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return Problem(
        (*at, "use"),
        f"[{table}] use: no plugin called {use!r} is installed",
        f"{meant}installed: {', '.join(sorted(models))}; packages called "
        "swebench-trainer-NAME add more",
    )


_NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sft": (("model",),),
    "grade": (("generate", "evaluate"),),
    "pairs": (("generate",), ("grade",)),
    "dpo": (("model",), ("pairs",)),
    "evaluate": (("model",), ("grade",)),
    "publish": (("sft", "dpo"),),
}
"""Other tables that a table needs: at least one of each group."""


def _is_optional(name: str, other: str, parsed: Values) -> bool:
    """Whether `name` works without `other`: `[pairs]` may not need `[grade]`."""
    if (name, other) != ("pairs", "grade"):
        return False
    # An invalid table has been reported already, and has no `needs_grades`.
    table = parsed.get("pairs")
    return not isinstance(table, PairsTable) or not table.needs_grades


def broken_rules(values: Values, parsed: Values) -> list[Problem]:
    """The problems of tables that do not fit together, or lack others."""
    problems = []
    for name, groups in _NEEDS.items():
        for group in groups if name in values else ():
            if not any(
                other in values or _is_optional(name, other, parsed) for other in group
            ):
                wanted = " or ".join(f"[{other}]" for other in group)
                what = f"[{name}] needs {wanted} in the same recipe"
                problems.append(Problem((name,), what))
    generate = values.get("generate")
    if isinstance(generate, dict) and not ("model" in values or "model" in generate):
        what = "[generate] needs [model], or its own model key"
        problems.append(Problem(("generate",), what))
    pairs: Any = parsed.get("pairs")
    dpo = parsed.get("dpo")
    one_sided = isinstance(pairs, PairsTable) and pairs.one_sided
    if one_sided and isinstance(dpo, DpoTable) and dpo.loss != "kto":
        what = f'[pairs] use = "{pairs.use}" makes pairs with one answer, but [dpo] '
        what += f'loss = "{dpo.loss}" compares two'
        hint = 'set [dpo] loss = "kto", or use another strategy'
        problems.append(Problem(("pairs", "use"), what, hint))
    grade = parsed.get("grade")
    if (
        isinstance(pairs, PairsTable)
        and isinstance(grade, GradeTable)
        and not grade.counter_runs
        and "trust" in pairs.model_fields_set
        and pairs.trust != "any"
    ):
        what = f'[pairs] trust = "{pairs.trust}" needs counter-runs, and [grade] '
        problems.append(
            Problem(
                ("pairs", "trust"),
                f"{what}counter_runs is false",
                'set [grade] counter_runs = true, or [pairs] trust = "any"',
            )
        )
    return problems
