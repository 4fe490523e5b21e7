"""Writes docs/reference/ from the source: `python docs/generate.py`."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import typer
from pydantic_core import PydanticUndefined

from swebench_trainer import (
    builtin,
    contracts,
    errors,
    events,
    hookspecs,
    testing,
    types,
)
from swebench_trainer.cli import app
from swebench_trainer.plugins.manager import Plugins
from swebench_trainer.recipe.models import TABLES, PluginTable, Recipe, Table

RECIPE_INTRO = """\
A recipe is a TOML file with a few top-level keys, and a table for each stage or plugin. An optional
key with an empty default is off, or its description says what applies. `swebench-train check RECIPE`
validates a recipe; [the README](../../README.md#write-a-recipe) has an example."""
NOTE = "<!-- Written by docs/generate.py; change the docstrings instead. -->\n"


def pages() -> dict[str, str]:
    """The text of each reference page, by name."""
    return {
        "hooks": hook_reference(),
        "contracts": contract_reference(),
        "recipe": recipe_reference(),
        "cli": command_reference(),
    }


def hook_reference() -> str:
    """Every hook with its arguments and its docstring."""
    parts = [f"# Hooks\n\n{NOTE}", inspect.getdoc(hookspecs) or ""]
    for name, function in vars(hookspecs).items():
        if hasattr(function, "swebench_trainer_spec"):
            arguments = ", ".join(inspect.signature(function).parameters)
            parts.append(f"### `{name}({arguments})`")
            parts.append(inspect.getdoc(function) or "")
    parts.append("## The `register` callback")
    parts.append(inspect.getdoc(hookspecs.Register.__call__) or "")
    return "\n\n".join(parts) + "\n"


def contract_reference() -> str:
    """Every public type with its docstrings, and the testing kit."""
    parts = [f"# Contracts\n\n{NOTE}", inspect.getdoc(contracts) or ""]
    for module, heading in (
        (contracts, "Protocols, arguments, and results"),
        (types, "Data types"),
        (events, "Events"),
        (errors, "Errors"),
    ):
        parts.append(f"## {heading}\n\n`from {module.__name__} import …`")
        for name, value in public(module).items():
            parts.append(f"### `{name}`\n\n{_description(name, value)}")
    kit = "## The testing kit\n\n`from swebench_trainer.testing import …`"
    parts += [kit, inspect.getdoc(testing) or ""]
    for name, value in sorted(vars(testing).items()):
        if callable(value) and not name.startswith("_"):
            parts.append(f"### `{name}`\n\n```python\n{_outline(value)}\n```")
    return "\n\n".join(parts) + "\n"


def public(module: ModuleType) -> dict[str, Any]:
    """The classes and functions that a module defines, in order."""
    return {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
        and not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
    }


def _description(name: str, value: Any) -> str:
    if value.__name__ != name:
        return f"Deprecated alias of `{value.__name__}`."
    return f"```python\n{_outline(value)}\n```"


def _outline(value: Any) -> str:
    """The source of a class or function without the bodies of functions."""
    lines = textwrap.dedent(inspect.getsource(value)).split("\n")
    (node,) = ast.parse("\n".join(lines)).body
    parts = [_head(node, lines) + ("\n" if isinstance(node, ast.ClassDef) else "")]
    for inner in node.body[1:] if isinstance(node, ast.ClassDef) else ():
        if not isinstance(inner, ast.FunctionDef):
            last = inner.end_lineno or inner.lineno
            parts.append("\n".join(lines[inner.lineno - 1 : last]))
        elif inner.name == "__init__" or not inner.name.startswith("_"):
            parts.append("\n" + _head(inner, lines))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip()


def _head(node: ast.stmt, lines: list[str]) -> str:
    """The source from the decorators to the end of the docstring."""
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    documented = ast.get_docstring(node) is not None
    body = node.body[0]
    last = body.end_lineno if documented else body.lineno - 1
    return "\n".join(lines[first - 1 : last])


def recipe_reference() -> str:
    """Every key of every table, with its default and its help."""
    parts = [f"# Recipe keys\n\n{NOTE}", RECIPE_INTRO, _top_level()]
    for table, models in Plugins({"builtin": builtin}).tables().items():
        parts.append(f"## `[{table}]`")
        for use, model in models.items():
            heading = f'### `use = "{use}"`' if use else "### Keys"
            parts.append(_keys(heading, model))
        for names, model in _inner_tables(models.values()).items():
            parts.append(_keys(f"### {names}", model))
    return "\n\n".join(parts) + "\n"


def command_reference() -> str:
    """Every command with its arguments, options, and help."""
    group: Any = typer.main.get_command(app)  # a class that typer does not export
    parts = [f"# Command line\n\n{NOTE}", group.help or ""]
    for name, command in group.commands.items():
        parts.append(f"## `swebench-train {name}`\n\n{command.help}")
        if command.params:
            rows = map(_parameter_row, command.params)
            head = "| argument or option | default | help |\n| --- | --- | --- |"
            parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts) + "\n"


def _parameter_row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        label = parameter.metavar or parameter.name.upper()
    else:
        label = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.required:
        default = "required"
    elif parameter.default in (None, ()) or isinstance(parameter.default, bool):
        default = ""
    else:
        default = f"`{parameter.default}`"
    cells = (f"`{label}`", default, parameter.help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _inner_tables(models: Iterable[type[Table]]) -> dict[str, type[Table]]:
    """The inline tables of a table's keys, under the keys that take them."""
    keys: dict[type[Table], list[str]] = {}
    for model in models:
        for name, spec in model.model_fields.items():
            for kind in (spec.annotation, *get_args(spec.annotation)):
                inline = isinstance(kind, type) and issubclass(kind, Table)
                if inline and not issubclass(kind, PluginTable):
                    found = keys.setdefault(kind, [])
                    found += [] if f"`{name}`" in found else [f"`{name}`"]
    return {", ".join(names): model for model, names in keys.items()}


def _top_level() -> str:
    """The recipe's keys, and its tables with links."""
    fields = Recipe.model_fields.items()
    keys = [(k, spec) for k, spec in fields if k not in TABLES]
    tables = [(k, spec) for k, spec in fields if k in TABLES]
    lines = ["## Top level", "", inspect.getdoc(Recipe) or "", ""]
    lines += ["| key | default | description |", "| --- | --- | --- |"]
    lines += [f"| `{k}` | {_default(spec)} | {spec.description} |" for k, spec in keys]
    lines += ["", "| table | description |", "| --- | --- |"]
    lines += [f"| [`[{k}]`](#{k}) | {spec.description} |" for k, spec in tables]
    return "\n".join(lines)


def _keys(heading: str, model: type[Table]) -> str:
    lines = [
        heading,
        "",
        inspect.getdoc(model) or "",
        "",
        "| key | default | description |",
        "| --- | --- | --- |",
    ]
    for name, spec in model.model_fields.items():
        lines.append(f"| `{name}` | {_default(spec)} | {spec.description} |")
    return "\n".join(lines)


def _default(spec: object) -> str:
    value = getattr(spec, "default", PydanticUndefined)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Table):
        given = {k: v for k, v in value if k in value.model_fields_set}
        shown = given or {k: v for k, v in value if v not in (None, ())}
        inner = ", ".join(f"{key} = {_toml(inner)}" for key, inner in shown.items())
        return f"`{{ {inner} }}`"
    return "" if value is None else f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value)


if __name__ == "__main__":
    for page, text in pages().items():
        Path(__file__).parent.joinpath("reference", f"{page}.md").write_text(text)
