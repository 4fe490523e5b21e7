"""Held-out loss: when to stop, and which step's weights to release.

Some training instances are held out, with all their rows. After every `save_every` steps,
every epoch and the last step, the loss on them is written to `metrics.jsonl`; the weights
of the best evaluation so far are kept next to the checkpoints. There is no other state:
the best evaluation, and the number of evaluations since, are derived from the metrics. A
resume cuts these back to its checkpoint, so it continues like an undisturbed training.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import TrainTable
from swebench_trainer.store.draw import draw_fraction
from swebench_trainer.store.jsonl import read_rows
from swebench_trainer.training.distributed import ranks
from swebench_trainer.training.loop import checkpoints, guards
from swebench_trainer.training.tokens.rows import Encoded

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

LOSS = "eval_loss"

_FILE = "weights.safetensors"

Metrics = Sequence[Mapping[str, Any]]


def hold_out(
    rows: Sequence[Encoded], share: float, seed: int
) -> tuple[list[Encoded], list[Encoded]]:
    """Splits rows by their instances into rows to train on and held-out rows.

    A digest gives each instance a number between 0 and 1; instances below `share` are
    held out. So SFT and DPO hold out the same instances, and new rows do not change the
    side of others. Each side gets at least one instance.

    Raises:
        StageError: `share` is above zero, and all rows have the same instance.
    """
    if not share:
        return list(rows), []
    places = {row.key: draw_fraction(seed, "validation", row.key) for row in rows}
    if len(places) < 2:
        raise StageError(
            "validation needs at least two instances, one to train on and one to hold out.",
            hint="Set validation = 0, or train on more instances.",
        )
    first, *_, last = sorted(places, key=lambda key: places[key])
    held = {key for key, place in places.items() if place < share} | {first}
    held.discard(last)
    return (
        [row for row in rows if row.key not in held],
        [row for row in rows if row.key in held],
    )


@dataclass(frozen=True)
class Best:
    """The evaluation with the lowest loss, the first one if several are equal.

    Attributes:
        since: Number of evaluations after it.
    """

    step: int
    loss: float
    since: int


def best_of(metrics: Metrics) -> Best | None:
    """The best evaluation in the metrics; `None` if they have none."""
    found = [(row[LOSS], row["step"]) for row in metrics if LOSS in row]
    if not found:
        return None
    loss, step = min(found)
    return Best(step, loss, sum(later > step for _, later in found))


def is_over(metrics: Metrics, settings: TrainTable) -> bool:
    """Whether `patience` evaluations have passed since the best one."""
    best = best_of(metrics)
    return bool(best and settings.patience and best.since >= settings.patience)


def newest_usable(
    folder: Path, metrics: Metrics, lost: Callable[[str], None] = lambda _: None
) -> Path | None:
    """The newest complete checkpoint whose best weights so far are complete, too.

    Removes newer checkpoints: without these weights a training resumed from them could
    end differently from an undisturbed one.

    Args:
        folder: Directory of the checkpoints.
        metrics: Rows of all steps, including those after the checkpoint.
        lost: Called with a message for each removed checkpoint.
    """
    while checkpoint := checkpoints.newest_complete(folder, lost):
        step = checkpoints.step_of(checkpoint)
        best = best_of([row for row in metrics if row["step"] <= step])
        if best is None or checkpoints.is_complete(_weights(folder, best.step)):
            return checkpoint
        lost(f"{checkpoint.name} lacks the best weights before it")
        shutil.rmtree(checkpoint)
    return None


def keeper(metrics: Path, settings: TrainTable) -> TrainerCallback:
    """A callback that requests evaluations, keeps the best weights, and stops early."""
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            per_epoch = state.max_steps // args.num_train_epochs
            ends = [settings.save_every, per_epoch, state.max_steps]
            if any(end and state.global_step % end == 0 for end in ends):
                control.should_evaluate = True

        def on_evaluate(
            self, args: Any, state: Any, control: Any, model: Any, **_: Any
        ) -> None:
            ranks.barrier()  # until the evaluation is in the metrics
            rows = read_rows(metrics)
            best = best_of(rows)
            if best and best.step == state.global_step and ranks.is_first():
                _write(model, _weights(Path(args.output_dir), best.step))
                if not settings.save_every:
                    self.on_save(args)
            if is_over(rows, settings):
                control.should_training_stop = True

        def on_save(self, args: Any, *_: Any, **__: Any) -> None:
            if not ranks.is_first():
                return
            # Only now: before this checkpoint, a killed training resumes from a step
            # for which other weights may be the best.
            best = best_of(read_rows(metrics))
            for folder in Path(args.output_dir).glob("best-*"):
                if best and folder.name != f"best-{best.step}":
                    shutil.rmtree(folder, ignore_errors=True)

    return Keeper()


def restore_best(model: torch.nn.Module, folder: Path, metrics: Metrics) -> Best:
    """Puts the best weights back into the model that was trained.

    Args:
        model: The trainer's model.
        folder: Directory of the checkpoints.
        metrics: Rows of the whole training, with at least one evaluation.

    Raises:
        StageError: The weights are damaged.
    """
    from safetensors.torch import load_file

    best = best_of(metrics)
    assert best is not None  # the last step is always evaluated
    kept = _weights(folder, best.step)
    if not checkpoints.is_complete(kept):
        raise StageError(
            f"The weights of step {best.step}, the best by held-out loss, are damaged.",
            hint="Run the same command again: it resumes from before that step.",
        )
    tensors = load_file(kept / _FILE)
    for name, p in model.named_parameters():
        if name in tensors:
            p.data.copy_(tensors[name])
    return best


def report(best: Best, metrics: Metrics, held_out: Sequence[Encoded]) -> dict[str, Any]:
    """The entry `validation` of the audit."""
    last = metrics[-1]["step"]
    count = sum(LOSS in row for row in metrics)
    ended = f"training ended at step {last}"
    if best.step < last:
        ended += f", {best.since} evaluations after the best"
    return {
        "instances": sorted({row.key for row in held_out}),
        "rows": len(held_out),
        "evaluations": count,
        "kept_step": best.step,
        "kept_loss": best.loss,
        "why": f"the lowest held-out loss of {count} evaluations; {ended}",
    }


def _weights(folder: Path, step: int) -> Path:
    return folder / f"best-{step}"


def _write(model: torch.nn.Module, target: Path) -> None:
    """Writes the trainable weights, in the precision of the training."""
    from safetensors.torch import save_file

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    tensors = {
        name: p.detach().cpu().contiguous()
        for name, p in guards.trainable(model).items()
    }
    save_file(tensors, target / _FILE)
    checkpoints.seal(target)
