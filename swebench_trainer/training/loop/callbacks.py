"""What happens during a training: its metrics, its checkpoints, and its milestones.

Milestones are weights from the middle of a training, for the evaluation to show its
progress. `milestones.jsonl` has a row for each of them, and one for the last step, whose
weights are those of the stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.contracts import StepProgress
from swebench_trainer.store import durable
from swebench_trainer.store.jsonl import RowWriter, read_rows, write_rows
from swebench_trainer.training.distributed import ranks
from swebench_trainer.training.loop import checkpoints, guards, validation

if TYPE_CHECKING:
    from transformers import TrainerCallback

MILESTONES = "milestones.jsonl"
MILESTONE_WEIGHTS = "milestones"

_NOT_REPRODUCIBLE = ("num_tokens", "_runtime", "_per_second")
"""Suffixes of metrics that differ in a resumed training."""

_MUST_BE_FINITE = {
    "loss": "loss",
    validation.LOSS: "loss",
    "grad_norm": "gradient norm",  # before clipping; if it is NaN, the weights will be
}
"""Metrics that end a training if they are infinite or NaN, and their names."""

Save = Callable[..., Path]


def recorder(metrics: Path, step: StepProgress) -> TrainerCallback:
    """A callback that writes metrics, reports progress and seals checkpoints."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_log(
            self, _args: Any, state: Any, _control: Any, logs: Any, **_: Any
        ) -> None:
            if not logs.keys() & {"loss", validation.LOSS}:  # the summary at the end
                return
            for name, label in _MUST_BE_FINITE.items():
                guards.require_finite(state.global_step, label, logs.get(name, 0))
            if not ranks.is_first():
                return
            row = {k: v for k, v in logs.items() if not k.endswith(_NOT_REPRODUCIBLE)}
            with RowWriter(metrics) as rows:
                rows.write({"step": state.global_step, **row})
            if "loss" not in logs:
                return
            step(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")

        def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            ranks.barrier()  # each process writes the state of its random numbers
            if ranks.is_first():
                # The metrics must not end before the step of the checkpoint.
                durable.sync(metrics)
                checkpoints.seal(
                    Path(args.output_dir, f"checkpoint-{state.global_step}")
                )

    return Recorder()


def steps_of(number: int, total: int) -> tuple[int, ...]:
    """Evenly spaced steps, including the last one."""
    return tuple(
        sorted({max(1, round(total * k / number)) for k in range(1, number + 1)})
    )


def milestone_keeper(out: Path, number: int, save: Save) -> TrainerCallback:
    """A callback that saves the weights of milestones.

    Args:
        out: Directory of the stage.
        number: Number of milestones, including the last step.
        save: `saving.save` without directory, model, state and dtype.
    """
    from transformers import TrainerCallback

    class MilestoneKeeper(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        # Seconds of training before this start or resume, up to the last milestone.
        before = 0.0
        began = 0.0

        def on_train_begin(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            rows = [
                r for r in read_rows(out / MILESTONES) if r["step"] <= state.global_step
            ]
            self.before = rows[-1]["seconds"] if rows else 0.0
            self.began = time.monotonic()
            if ranks.is_first():
                write_rows(out / MILESTONES, rows)

        def on_step_end(
            self, _args: Any, state: Any, _control: Any, model: Any, **_: Any
        ) -> None:
            step, total = state.global_step, state.max_steps
            if step not in steps_of(number, total) or not ranks.is_first():
                return
            row = {"step": step, "seconds": self._seconds()}
            if step < total:
                folder = out / MILESTONE_WEIGHTS / str(step)
                folder.mkdir(parents=True, exist_ok=True)
                weights = save(folder, model, None, dtype=None)
                row["weights"] = weights.relative_to(out).as_posix()
            with RowWriter(out / MILESTONES) as rows:
                rows.write(row)

        def _seconds(self) -> float:
            return round(self.before + time.monotonic() - self.began, 1)

    return MilestoneKeeper()
