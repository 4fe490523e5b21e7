"""Train open code models on SWE-bench, from issues to graded adapters."""

from __future__ import annotations

from swebench_trainer.errors import TrainerError
from swebench_trainer.hookspecs import hookimpl
from swebench_trainer.types import Candidate, Instance, Pair, Status, Verdict

__version__ = "0.1.0"

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
