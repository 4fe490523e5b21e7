"""Weights from the middle of a training, for the evaluation to show its progress.

`milestones.jsonl` has a row for each of them, and one for the last step, whose weights are
those of the stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.store.jsonl import RowWriter, read_rows, write_rows
from swebench_trainer.training.distributed import ranks

if TYPE_CHECKING:
    from transformers import TrainerCallback

FILE = "milestones.jsonl"
FOLDER = "milestones"

Save = Callable[..., Path]


def steps_of(number: int, total: int) -> tuple[int, ...]:
    """Evenly spaced steps, including the last one."""
    return tuple(
        sorted({max(1, round(total * k / number)) for k in range(1, number + 1)})
    )


def keeper(out: Path, number: int, save: Save) -> TrainerCallback:
    """A callback that saves the weights of milestones.

    Args:
        out: Directory of the stage.
        number: Number of milestones, including the last step.
        save: `saving.save` without directory, model, state and dtype.
    """
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        # Seconds of training before this start or resume, up to the last milestone.
        before = 0.0
        began = 0.0

        def on_train_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            rows = [r for r in read_rows(out / FILE) if r["step"] <= state.global_step]
            self.before = rows[-1]["seconds"] if rows else 0.0
            self.began = time.monotonic()
            if ranks.is_first():
                write_rows(out / FILE, rows)

        def on_step_end(
            self, _args: Any, state: Any, _control: Any, model: Any, **_: Any
        ) -> None:
            step, total = state.global_step, state.max_steps
            if step not in steps_of(number, total) or not ranks.is_first():
                return
            row = {"step": step, "seconds": self._seconds()}
            if step < total:
                folder = out / FOLDER / str(step)
                folder.mkdir(parents=True, exist_ok=True)
                weights = save(folder, model, None, dtype=None)
                row["weights"] = weights.relative_to(out).as_posix()
            with RowWriter(out / FILE) as rows:
                rows.write(row)

        def _seconds(self) -> float:
            return round(self.before + time.monotonic() - self.began, 1)

    return Keeper()
