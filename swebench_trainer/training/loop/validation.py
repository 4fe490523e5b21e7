"""Held-out loss: when to stop, and which step's weights to keep.

Some training instances are held back, all rows of each. After every `save_every`
steps, every epoch and the last step the loss on them is written to `metrics.jsonl`;
the weights of the best evaluation so far lie beside the checkpoints. There is no other
state: which evaluation is the best, and how many have passed since, is read from the
metrics, which a resumed training cuts back to its checkpoint. So it goes on as if
nothing had happened.
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
from swebench_trainer.training.loop import checkpoints
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
    """Splits rows by their instances into those to train on and those held back.

    Each instance has a place of its own between 0 and 1; those below `share` are held
    back. So SFT and DPO hold back the same ones, and rows that are added change nobody
    else's side. One instance is held back and one trains, whatever the share.

    Raises:
        StageError: Some are to be held back, and there is one instance alone.
    """
    if not share:
        return list(rows), []
    places = {row.key: draw_fraction(seed, "validation", row.key) for row in rows}
    if len(places) < 2:
        raise StageError(
            "validation needs two instances, one to train on and one to hold back.",
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
    """The evaluation with the lowest loss, the first of equals.

    Attributes:
        since: Evaluations after it.
    """

    step: int
    loss: float
    since: int


def best_of(metrics: Metrics) -> Best | None:
    """The best of the evaluations in the metrics; `None` if there are none."""
    found = [(row[LOSS], row["step"]) for row in metrics if LOSS in row]
    if not found:
        return None
    loss, step = min(found)
    return Best(step, loss, sum(later > step for _, later in found))


def is_over(metrics: Metrics, settings: TrainTable) -> bool:
    """Whether patience is at its end."""
    best = best_of(metrics)
    return bool(best and settings.patience and best.since >= settings.patience)


def newest_usable(
    folder: Path, metrics: Metrics, lost: Callable[[str], None] = lambda _: None
) -> Path | None:
    """The newest checkpoint whose best weights so far are there too.

    Newer ones are removed: without these weights their training could not end as an
    undisturbed one.

    Args:
        folder: Directory of the checkpoints.
        metrics: Rows of all steps, those after the checkpoint included.
        lost: Told of each that was removed, in words for the user.
    """
    while checkpoint := checkpoints.newest_complete(folder, lost):
        step = checkpoints.step_of(checkpoint)
        best = best_of([row for row in metrics if row["step"] <= step])
        if best is None or checkpoints.is_complete(_weights(folder, best.step)):
            return checkpoint
        lost(f"{checkpoint.name} has lost the best weights before it")
        shutil.rmtree(checkpoint)
    return None


def keeper(metrics: Path, settings: TrainTable) -> TrainerCallback:
    """A callback that has the model evaluated, keeps the best weights, and stops."""
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
            # Not before: a training that is killed now goes on from here, and one
            # killed earlier from a step for which other weights may be the best.
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
        StageError: The weights are not what was written.
    """
    from safetensors.torch import load_file

    best = best_of(metrics)
    assert best is not None  # the last step is always evaluated
    kept = _weights(folder, best.step)
    if not checkpoints.is_complete(kept):
        raise StageError(
            f"The weights of step {best.step}, the best by held-out loss, are damaged.",
            hint="Call the same command again: it goes on from before that step.",
        )
    tensors = load_file(kept / _FILE)
    for name, p in model.named_parameters():
        if name in tensors:
            p.data.copy_(tensors[name])
    return best


def report(best: Best, metrics: Metrics, held: Sequence[Encoded]) -> dict[str, Any]:
    """What the audit says of it."""
    last = metrics[-1]["step"]
    count = sum(LOSS in row for row in metrics)
    ended = f"training ended at step {last}"
    if best.step < last:
        ended += f", {best.since} evaluated later"
    return {
        "instances": sorted({row.key for row in held}),
        "rows": len(held),
        "evaluations": count,
        "kept_step": best.step,
        "kept_loss": best.loss,
        "why": f"the lowest held-out loss of {count} evaluations; {ended}",
    }


def _weights(folder: Path, step: int) -> Path:
    return folder / f"best-{step}"


def _write(model: torch.nn.Module, target: Path) -> None:
    """Writes the trainable weights, in the precision in which they are trained."""
    from safetensors.torch import save_file

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    tensors = {
        name: p.detach().cpu().contiguous()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    save_file(tensors, target / _FILE)
    checkpoints.seal(target)
