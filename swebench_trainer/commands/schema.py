"""`swebench-train schema`."""

from __future__ import annotations

import json

from swebench_trainer.commands.inputs import load_plugins
from swebench_trainer.recipe.schema import json_schema


def execute() -> None:
    """Prints the JSON schema of recipes, including tables of installed plugins."""
    plugins = load_plugins()
    plugins.load_installed()
    print(json.dumps(json_schema(plugins.tables()), indent=2))
