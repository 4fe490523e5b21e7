"""`swebench-train new-plugin`."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.commands.inputs import load_plugins
from swebench_trainer.scaffold.write import write_plugin


def execute(name: str, kind: str, folder: Path) -> None:
    """Writes a new plugin, and prints the command that installs and tests it."""
    plugins = load_plugins()
    plugins.load_installed()
    taken = {entry.name for entry in plugins.registry if entry.slug == kind}
    written = write_plugin(name, kind, folder, taken)
    print(f"Created {written}. To install and test it:")
    print(f"pip install -e {written} && pytest {written}")
