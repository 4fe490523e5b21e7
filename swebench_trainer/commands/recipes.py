"""Commands about recipes that run nothing: `check`, `schema` and `new`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swebench_trainer.commands.inputs import load_plugins, load_recipe
from swebench_trainer.recipe.explain import TableModels
from swebench_trainer.recipe.models import Recipe
from swebench_trainer.recipe.shipped import copy_recipe, shipped_recipes
from swebench_trainer.stages.graph import stages_of


def check(recipe: Path, overrides: list[str]) -> None:
    """Validates a recipe and prints the stages that it would run."""
    valid, _ = load_recipe(recipe, overrides, load_plugins())
    print(f"{recipe}: valid. Stages: {', '.join(s.name for s in stages_of(valid))}.")


def print_schema() -> None:
    """Prints the JSON schema of recipes, including tables of installed plugins."""
    plugins = load_plugins()
    plugins.load_installed()
    print(json.dumps(json_schema(plugins.tables()), indent=2))


def json_schema(tables: TableModels) -> dict[str, Any]:
    """The schema of a recipe; a table that names a plugin matches one plugin's schema."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    for name, models in tables.items():
        choices = []
        for use, model in models.items():
            inner = model.model_json_schema(ref_template="#/$defs/{model}")
            definitions.update(inner.pop("$defs", {}))
            if use:
                inner["properties"]["use"]["const"] = use
            choices.append(inner)
        schema["properties"][name] = {"anyOf": choices}
    writer = {"anyOf": [*schema["properties"]["model"]["anyOf"], {"type": "null"}]}
    for choice in schema["properties"]["generate"]["anyOf"]:
        choice["properties"]["model"] = writer
    schema["anyOf"] = [
        {"required": schema.pop("required")},
        {"required": ["extends"]},
    ]
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "Path of a recipe, relative to this file, to merge this one into.",
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def new(name: str | None, folder: Path) -> None:
    """Copies a shipped recipe with its data, or lists the shipped recipes."""
    if name is None:
        for recipe, summary in shipped_recipes().items():
            print(f"{recipe:<28} {summary}")
    else:
        copied = copy_recipe(name, folder)
        print(f"Created {copied}. To run it:\nswebench-train {copied}")
