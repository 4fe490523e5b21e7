"""Train open code models on SWE-bench, from issues to graded adapters.

The public names are imported on first use, so that importing the package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swebench_trainer.errors import TrainerError
    from swebench_trainer.hookspecs import hookimpl
    from swebench_trainer.types import Candidate, Instance, Pair, Status, Verdict

__version__ = "0.1.0"

_HOMES = {
    "hookimpl": "swebench_trainer.hookspecs",
    "Candidate": "swebench_trainer.types",
    "Instance": "swebench_trainer.types",
    "Pair": "swebench_trainer.types",
    "Status": "swebench_trainer.types",
    "Verdict": "swebench_trainer.types",
    "TrainerError": "swebench_trainer.errors",
}

__all__ = [
    "Candidate",
    "Instance",
    "Pair",
    "Status",
    "TrainerError",
    "Verdict",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
