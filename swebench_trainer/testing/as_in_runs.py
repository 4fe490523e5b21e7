"""A plugin's object as a run has it, whose faults are failures of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from swebench_trainer.errors import PluginFault
from swebench_trainer.plugins.guard import GuardedPlugin, Role
from swebench_trainer.plugins.watchdog import Watchdog


def as_held(thing: Any, role: Role, table: Any = None) -> Any:
    """The object held to its contract, as in a run."""
    with as_assertions():
        return GuardedPlugin(thing, role, f"The {role}", Watchdog(), table)


@contextmanager
def as_assertions() -> Iterator[None]:
    """Turns what a run would report into an `AssertionError`."""
    try:
        yield
    except PluginFault as error:
        raise AssertionError(error.message) from error
