"""What SFT and DPO share around TRL's trainers: arguments, resuming, saving."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.contracts import StepProgress, TrainRequest
from swebench_trainer.errors import RecipeError
from swebench_trainer.recipe.models import DpoTable, SftTable, TrainTable
from swebench_trainer.store import durable
from swebench_trainer.store.jsonl import (
    RowWriter,
    read_json,
    read_rows,
    write_json,
    write_rows,
)
from swebench_trainer.training import failures
from swebench_trainer.training.distributed import ranks, sharding
from swebench_trainer.training.loop import (
    activation_checkpointing,
    checkpoints,
    guards,
    milestones,
    trackers,
    validation,
)
from swebench_trainer.training.models import saving
from swebench_trainer.training.models.loading import declared_dtype
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.tokens.rows import Encoded

if TYPE_CHECKING:
    import torch
    from transformers import Trainer, TrainerCallback

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


def common_arguments(
    table: HfTable, settings: SftTable | DpoTable, request: TrainRequest, rows: int
) -> dict[str, Any]:
    """Arguments of `SFTConfig` and `DPOConfig` alike.

    Args:
        table: The recipe's `[model]`.
        settings: The recipe's `[sft]` or `[dpo]`.
        request: What the stage asks for.
        rows: Rows to train on, from which the warm-up is counted.

    Raises:
        RecipeError: `micro_batch` does not divide `batch_size`.
    """
    import torch

    at_once = settings.micro_batch * settings.processes
    accumulation, rest = divmod(settings.batch_size, at_once)
    if rest:
        raise RecipeError(
            f"micro_batch = {settings.micro_batch} does not divide batch_size = {settings.batch_size} over processes = {settings.processes}."
        )
    cuda = torch.cuda.is_available()
    steps = settings.epochs * math.ceil(rows / settings.batch_size)
    return {
        "output_dir": str(request.out / "checkpoints"),
        "per_device_train_batch_size": settings.micro_batch,
        "per_device_eval_batch_size": 1,  # a mean over rows, whatever micro_batch is
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": _SCHEDULES[settings.schedule],
        # Rounded down: a warm-up starts at a rate of zero, which would be the
        # whole of a training of one step.
        "warmup_steps": int(settings.warmup_ratio * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "max_length": None,  # our rows fit already; TRL would cut answers
        "activation_checkpointing": False,  # `fit` switches it on
        "seed": request.seed,
        "data_seed": request.seed,
        "use_cpu": not cuda,
        "bf16": cuda,
        "dataloader_pin_memory": cuda,
        "save_strategy": "steps" if settings.save_every else "no",
        "save_steps": settings.save_every or 1,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would show the guards a healthy loss
        "disable_tqdm": True,
        **trackers.arguments(settings.trackers, request.out),
        **sharding.arguments(settings),
    }


_NOT_REPEATED = ("num_tokens", "_runtime", "_per_second")
"""Ends of the names of metrics that are others in a resumed training."""

_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
}


def prepared(trainer_class: type[Any]) -> type[Any]:
    """A TRL trainer that takes our tokens as they are and reports to nobody."""

    class Prepared(trainer_class):  # type: ignore[misc]  # chosen by the caller
        def __init__(self, *, args: Any, **options: Any) -> None:
            if args.n_gpu > 1:
                # With more in sight the trainer would give each a copy of the model
                # and a micro-batch of its own; `processes` is how to use them.
                args._n_gpu = 1
            super().__init__(args=args, **options)

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Nothing: the publisher writes the one card, with graded numbers."""

        def _send_telemetry(self) -> None:
            """Nothing leaves the machine."""

    return Prepared


def base_of(model: Any) -> Any:
    """The model of transformers, without PEFT around it."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def exact_adapters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the adapters of a 4-bit model, which TRL's trainers round to bf16."""
    if not getattr(model, "is_loaded_in_4bit", False):
        return {}
    return {
        name: p.detach().clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def keep_in_fp32(model: torch.nn.Module, exact: Mapping[str, torch.Tensor]) -> None:
    """Puts the trainable weights, and so the optimizer's state, into fp32.

    In bf16 a step of less than about half a percent of a weight rounds away, which
    at DPO's learning rates is nearly every step.

    Args:
        model: The trainer's model, before its optimizer exists.
        exact: Values to restore, from `exact_adapters`.
    """
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.data = exact.get(name, p.data).float()


def finished(out: Path) -> Path | None:
    """The weights of a training that has come to its end, else `None`.

    A run can be killed after the training and before its stage is marked as done.

    Args:
        out: Directory of the stage.
    """
    audit = read_json(out / "audit.json") or {}
    weights: Path = out / audit.get("weights", "not yet")
    if not weights.is_dir():
        return None
    _remove_checkpoints(out)
    return weights


def fit(
    trainer: Trainer,
    table: HfTable,
    request: TrainRequest,
    audit: dict[str, Any],
    settings: TrainTable,
    held: Sequence[Encoded] = (),
) -> Path:
    """Trains, from the newest complete checkpoint if there is one, and saves.

    Args:
        trainer: A trainer of TRL whose model is as it was before its first step.
        table: The recipe's `[model]`.
        request: What the stage asks for.
        audit: What `fit_rows` has counted; completed and written to `audit.json`
            when the weights are there.
        settings: The recipe's `[sft]` or `[dpo]`.
        held: The rows of the trainer's `eval_dataset`.

    Returns:
        `adapter/` or `model/` of `request.out`.

    Raises:
        RecipeError: Rows are longer than the model's window.
        StageError: A guard finds that nothing was learned.
    """
    with failures.training(table, settings, audit, request.out):
        before = _looked_over(trainer, table, request, audit)
        _train(trainer, table, request, audit, settings, held)
        dtype = declared_dtype(table, request.start)
        _judge(trainer, before, None if table.lora else dtype, request.out, audit, held)
        state = sharding.whole_state(trainer)
        model = trainer.model
        return ranks.once(partial(_end, model, state, table, request, audit, dtype))


def _looked_over(
    trainer: Trainer, table: HfTable, request: TrainRequest, audit: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Checks and counts what there is before the first step; samples the weights."""
    if ranks.size() > 1:  # so that every process has as many
        at_once = trainer.args.train_batch_size * ranks.size()
        audit["repeated_rows"] = -len(trainer.train_dataset) % at_once
    audit["trainable_parameters"] = guards.require_trainable(trainer.model)
    guards.require_window(trainer.model.config, audit["longest_kept"])
    audit["checkpointing"] = activation_checkpointing.settle(
        trainer, base_of(trainer.model), table.checkpointing, request.out
    )
    return guards.sample_weights(trainer.model)


def _train(
    trainer: Trainer,
    table: HfTable,
    request: TrainRequest,
    audit: dict[str, Any],
    settings: TrainTable,
    held: Sequence[Encoded],
) -> None:
    """Takes the steps that are left."""
    from transformers import PrinterCallback

    metrics = request.out / METRICS
    resume = ranks.once(partial(_begin, request.out, metrics, audit))
    sharding.require_same(trainer, resume)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_recorder(metrics, request.step))
    if held:
        trainer.add_callback(validation.keeper(metrics, settings))
    if settings.milestones:
        save = partial(saving.save, table=table, start=request.start)
        keeper = milestones.keeper(request.out, settings.milestones, save)
        trainer.add_callback(keeper)
    if settings.optimizer == "muon":
        from swebench_trainer.training.loop.muon import muon_for

        trainer.optimizer = muon_for(
            trainer.model, trainer.args.learning_rate, trainer.args.weight_decay
        )
    if not validation.is_over(read_rows(metrics), settings):
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    ranks.wait()  # for the rows of the last step


def _judge(
    trainer: Trainer,
    before: Mapping[str, torch.Tensor],
    dtype: torch.dtype | None,
    out: Path,
    audit: dict[str, Any],
    held: Sequence[Encoded],
) -> None:
    """Puts the weights to keep into the model, and asks whether they have learned.

    Args:
        trainer: After its last step.
        before: The weights that it began with, from `sample_weights`.
        dtype: What the model is saved in; `None` for adapters, which stay as they are.
        out: Directory of the stage.
        audit: Completed.
        held: Rows that were held back.
    """
    rows = read_rows(out / METRICS)
    if held:
        best = validation.restore_best(trainer.model, out / "checkpoints", rows)
        audit["validation"] = validation.report(best, rows, held)
    guards.require_margins(rows)
    steps = sum(row.get("learning_rate", 0) > 0 for row in rows)
    audit["moved"] = guards.require_moved(before, trainer.model, steps)
    audit["steps"] = rows[-1]["step"]
    audit["loss"] = [row["loss"] for row in rows if "loss" in row][-1]
    if dtype is not None:
        audit["moved_as_saved"] = guards.require_saved(before, trainer.model, dtype)


def _begin(out: Path, metrics: Path, audit: dict[str, Any]) -> Path | None:
    """Writes the first audit; finds the checkpoint to resume from, if there is one."""
    lost: list[str] = []
    rows = read_rows(metrics)
    resume = validation.newest_usable(out / "checkpoints", rows, lost.append)
    if lost:
        audit["lost_checkpoints"] = lost
        log.warning("%s: resumed from %s", "; ".join(lost), resume or "the start")
    write_json(out / "audit.json", audit)
    _forget_after(metrics, checkpoints.step_of(resume) if resume else 0)
    return resume


def _end(
    model: Any,
    state: Mapping[str, torch.Tensor] | None,
    table: HfTable,
    request: TrainRequest,
    audit: dict[str, Any],
    dtype: torch.dtype,
) -> Path:
    """Saves weights and audit of a training that has taken its last step."""
    out = request.out
    weights = saving.save(out, model, state, table, request.start, dtype)
    audit["weights"] = weights.name  # what `finished` looks for
    write_json(out / "audit.json", audit)
    _remove_checkpoints(out)
    return weights


def _recorder(metrics: Path, step: StepProgress) -> TrainerCallback:
    """A callback that keeps the metrics, reports progress and seals checkpoints."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_log(
            self, _args: Any, state: Any, _control: Any, logs: Any, **_: Any
        ) -> None:
            if not logs.keys() & {"loss", validation.LOSS}:  # the summary at the end
                return
            for name in logs.keys() & {"loss", validation.LOSS}:
                guards.require_finite(state.global_step, logs[name])
            guards.require_finite_gradient(state.global_step, logs.get("grad_norm", 0))
            if not ranks.writes():
                return
            row = {k: v for k, v in logs.items() if not k.endswith(_NOT_REPEATED)}
            with RowWriter(metrics) as rows:
                rows.write({"step": state.global_step, **row})
            if "loss" not in logs:
                return
            step(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")

        def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            ranks.wait()  # each process writes the state of its random numbers
            if ranks.writes():
                durable.sync(metrics)  # the rows before the step to resume from
                checkpoints.seal(
                    Path(args.output_dir, f"checkpoint-{state.global_step}")
                )

    return Recorder()


def _forget_after(metrics: Path, step: int) -> None:
    """Drops the rows of steps that will be taken again."""
    write_rows(metrics, [row for row in read_rows(metrics) if row["step"] <= step])


def _remove_checkpoints(out: Path) -> None:
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
