"""The JSON schema of a recipe, for editors."""

from __future__ import annotations

from typing import Any

from swebench_trainer.recipe.explain import TableModels
from swebench_trainer.recipe.models import Recipe


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
