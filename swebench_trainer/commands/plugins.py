"""`swebench-train plugins`."""

from __future__ import annotations

from swebench_trainer.commands.inputs import load_plugins
from swebench_trainer.reporting.console import open_console, print_line
from swebench_trainer.reporting.listings import plugin_table


def execute() -> None:
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
