"""A training as a file: what a process needs to take part in it."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import StepProgress, TrainRequest
from swebench_trainer.recipe.models import TrainTable
from swebench_trainer.store.jsonl import write_bytes
from swebench_trainer.training.loop import trackers
from swebench_trainer.training.models.table import HfTable

Train = Callable[[HfTable, Sequence[Any], Any, TrainRequest], Path]
"""`train_sft`, `train_dpo` or one of their kind: a function of a module."""


def _to_nobody(_done: int, _total: int, _word: str) -> None:
    """Stands for the callback of the stage, which is in another process."""


@dataclass(frozen=True)
class Job:
    """One call of a training function."""

    train: Train
    table: HfTable
    rows: Sequence[Any]
    settings: TrainTable
    request: TrainRequest

    def write(self, path: Path) -> None:
        """Writes all of it but the progress callback."""
        quiet = dataclasses.replace(self.request, step=_to_nobody)
        alone = dataclasses.replace(self, request=quiet, rows=list(self.rows))
        write_bytes(path, pickle.dumps(alone))

    @classmethod
    def read(cls, path: Path) -> Job:
        """Reads what `write` has written."""
        job = pickle.loads(path.read_bytes())  # noqa: S301 - what `write` wrote
        assert isinstance(job, Job)
        return job

    def run(self, step: StepProgress, *, first: bool = True) -> Path:
        """Trains in this process, which is the first of several or the only one."""
        request = dataclasses.replace(self.request, step=step)
        with trackers.tracked(self.settings.trackers, request.out, first=first):
            return self.train(self.table, self.rows, self.settings, request)
