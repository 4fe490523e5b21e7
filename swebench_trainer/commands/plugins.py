"""`swebench-train plugins` and `new-plugin`."""

from __future__ import annotations

from pathlib import Path

from swebench_trainer.commands.inputs import load_plugins
from swebench_trainer.reporting.console import open_console, print_line
from swebench_trainer.reporting.listings import plugin_table
from swebench_trainer.scaffold.write import write_plugin


def list_plugins() -> None:
    """Lists plugins, observers, and plugins that failed to load."""
    plugins, console = load_plugins(), open_console()
    plugins.load_installed()
    console.print(plugin_table(plugins.registry))
    for name, origin in plugins.origins.items():
        if not any(entry.origin == origin for entry in plugins.registry):
            print_line(console, f"observer {name} from {origin}")
    for broken in plugins.broken:
        print_line(
            console, f"{broken.name} ({broken.origin}) is broken: {broken.error}"
        )


def new(name: str, kind: str, folder: Path) -> None:
    """Writes a new plugin, and prints the command that installs and tests it."""
    plugins = load_plugins()
    plugins.load_installed()
    taken = {entry.name for entry in plugins.registry if entry.slug == kind}
    written = write_plugin(name, kind, folder, taken)
    print(f"Created {written}. To install and test it:")
    print(f"pip install -e {written} && pytest {written}")
