"""A plugin's object as a run sees it, with contract violations as test failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from swebench_trainer.errors import PluginFault
from swebench_trainer.plugins.guard import GuardedPlugin, Role


def as_in_runs(plugin: Any, role: Role) -> Any:
    """The object, checked against its contract as in a run."""
    with as_assertions():
        return GuardedPlugin(plugin, role, f"The {role}")


@contextmanager
def as_assertions() -> Iterator[None]:
    """Turn a `PluginFault` into an `AssertionError`."""
    try:
        yield
    except PluginFault as error:
        raise AssertionError(error.message) from error
