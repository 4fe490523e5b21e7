"""Violations of contracts as test failures: of an object, and of the import rule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "docker",
    "swebench.harness",
)
"""Libraries that a plugin must not import before its factory is called."""

_PROBE = """
import importlib, json, sys
modules, heavy = json.loads(sys.argv[1])
loaded = [importlib.import_module(name) for name in modules]
from swebench_trainer.plugins.manager import Plugins
plugins = Plugins({})
for module in loaded:
    plugins.add(module, module.__name__, "the module under test")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


def assert_light_import(*modules: str, heavy: tuple[str, ...] = HEAVY) -> None:
    """Import modules in a new interpreter, and call their registration hooks.

    Args:
        modules: Names of modules; they need not be plugins.
        heavy: Libraries that must not be loaded; add your SDK: `(*HEAVY, "openai")`.

    Raises:
        AssertionError: A module cannot be imported, or loads a heavy library.
    """
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, json.dumps([modules, heavy])],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found, f"importing {', '.join(modules)} loads {', '.join(found)}"
