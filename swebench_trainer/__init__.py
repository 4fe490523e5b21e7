"""Train open code models on SWE-bench, from issues to graded adapters.

The public names are loaded when they are first used, so that importing the
package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "hookimpl": "swebench_trainer.hookspecs",
    "Candidate": "swebench_trainer.types",
    "Instance": "swebench_trainer.types",
    "Pair": "swebench_trainer.types",
    "Status": "swebench_trainer.types",
    "Verdict": "swebench_trainer.types",
    "TrainerError": "swebench_trainer.errors",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
