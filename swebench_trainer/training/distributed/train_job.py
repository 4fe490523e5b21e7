"""Files between the stage and the processes of a training: the job, and their errors.

This is a separate module because `rank` runs as `__main__`, where pickle would not find
its classes.
"""

from __future__ import annotations

import dataclasses
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import StepProgress, TrainRequest
from swebench_trainer.errors import StageError, TrainerError
from swebench_trainer.recipe.models import TrainTable
from swebench_trainer.store.jsonl import write_bytes
from swebench_trainer.training.loop import trackers
from swebench_trainer.training.models.table import HfTable

Train = Callable[[HfTable, Sequence[Any], Any, TrainRequest], Path]
"""`train_sft`, `train_dpo`, or a similar module-level function."""


def _ignore(_done: int, _total: int, _word: str) -> None:
    """Replaces the stage's progress callback, which lives in another process."""


@dataclass(frozen=True)
class TrainJob:
    """One call of a training function."""

    train: Train
    table: HfTable
    rows: Sequence[Any]
    settings: TrainTable
    request: TrainRequest

    def write(self, path: Path) -> None:
        """Writes everything except the progress callback."""
        request = dataclasses.replace(self.request, step=_ignore)
        job = dataclasses.replace(self, request=request, rows=list(self.rows))
        write_bytes(path, pickle.dumps(job))

    @classmethod
    def read(cls, path: Path) -> TrainJob:
        """Reads a job that `write` wrote."""
        job = pickle.loads(path.read_bytes())  # noqa: S301 - written by `write`
        assert isinstance(job, TrainJob)
        return job

    def run(self, step: StepProgress, *, first: bool = True) -> Path:
        """Trains in this process, which is the only one or one of several.

        Args:
            step: Called after each optimizer step.
            first: Whether this is the first process.
        """
        request = dataclasses.replace(self.request, step=step)
        with trackers.tracked(self.settings.trackers, request.out, first=first):
            return self.train(self.table, self.rows, self.settings, request)


def write_error(path: Path, error: Exception, log: Path) -> None:
    """Writes the exception that ended a process of a training, and when.

    Args:
        path: File to write.
        error: The exception; one that is not a `TrainerError` becomes a `StageError`.
        log: File with its traceback.
    """
    if not isinstance(error, TrainerError):
        name = type(error).__name__
        error = StageError(
            f"A process of the training failed: {name}: {error}", hint=f"See {log}"
        )
    write_bytes(path, pickle.dumps((time.time(), error)))


def first_error(paths: Iterable[Path]) -> TrainerError | None:
    """The earliest exception in files that `write_error` wrote."""
    found = [pickle.loads(path.read_bytes()) for path in paths]  # noqa: S301 - our own
    _, error = min(found, key=lambda item: item[0], default=(0, None))
    return error  # type: ignore[no-any-return]  # pickle is untyped
