"""Files between the stage and the processes of a training: the job, and their errors.

They are a module of their own because `rank` runs as `__main__`, where pickle would not
find these classes.
"""

from __future__ import annotations

import dataclasses
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swebench_trainer import errors
from swebench_trainer.contracts import StepProgress, TrainRequest
from swebench_trainer.errors import StageError, TrainerError
from swebench_trainer.recipe.models import TrainTable
from swebench_trainer.store.jsonl import read_json, write_bytes, write_json
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


@dataclass(frozen=True)
class RankError:
    """An exception that ended a process of a training.

    Attributes:
        message: A sentence for users.
        hint: The next step.
        kind: Name of the class in `swebench_trainer.errors`; empty for an exception
            that is not a `TrainerError`.
        when: Seconds since the epoch.
    """

    message: str
    hint: str
    kind: str
    when: float

    @classmethod
    def of(cls, error: Exception, log: Path) -> RankError:
        """Describes an exception; `log` has its traceback."""
        name = type(error).__name__
        if isinstance(error, TrainerError):
            return cls(error.message, error.hint, name, time.time())
        message = f"A process of the training failed: {name}: {error}"
        return cls(message, f"See {log}", "", time.time())

    def write(self, path: Path) -> None:
        """Writes the description for the stage."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> RankError:
        """Reads a description that `write` wrote."""
        return cls(**read_json(path))

    def as_error(self) -> TrainerError:
        """The exception for the stage to raise."""
        kind: type[TrainerError] = getattr(
            errors, self.kind or "StageError", StageError
        )
        return kind(self.message, hint=self.hint)
