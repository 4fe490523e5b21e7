"""What SFT and DPO share around TRL's trainers: arguments, resuming, saving."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.contracts import Step, TrainRequest
from swebench_trainer.errors import RecipeError
from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.store.jsonl import (
    RowWriter,
    read_json,
    read_rows,
    write_json,
    write_rows,
)
from swebench_trainer.training import checkpoints, guards
from swebench_trainer.training.model import HfTable, compute_dtype

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback


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

    accumulation, rest = divmod(settings.batch_size, settings.micro_batch)
    if rest:
        raise RecipeError(
            f"micro_batch = {settings.micro_batch} does not divide batch_size = {settings.batch_size}."
        )
    cuda = torch.cuda.is_available()
    steps = settings.epochs * math.ceil(rows / settings.batch_size)
    return {
        "output_dir": str(request.out / "checkpoints"),
        "per_device_train_batch_size": settings.micro_batch,
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
        "activation_checkpointing": table.checkpointing,
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
        "report_to": "none",
    }


_SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
}


def prepared(trainer_class: type[Any]) -> type[Any]:
    """A TRL trainer that takes our tokens as they are and reports to nobody."""

    class Prepared(trainer_class):  # type: ignore[misc]  # chosen by the caller
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Nothing: the publisher writes the one card, with graded numbers."""

        def _send_telemetry(self) -> None:
            """Nothing leaves the machine."""

    return Prepared


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
    tokenizer: PreTrainedTokenizerBase,
    table: HfTable,
    request: TrainRequest,
    audit: dict[str, Any],
) -> Path:
    """Trains, from the newest complete checkpoint if there is one, and saves.

    Args:
        trainer: A trainer of TRL whose model is as it was before its first step.
        tokenizer: Saved beside full weights.
        table: The recipe's `[model]`.
        request: What the stage asks for.
        audit: What `fit_rows` has counted; completed and written to `audit.json`
            when the weights are there.

    Returns:
        `adapter/` or `model/` of `request.out`.

    Raises:
        RecipeError: Rows are longer than the model's window.
        StageError: A guard finds that nothing was learned.
    """
    from transformers import PrinterCallback

    audit["trainable_parameters"] = guards.require_trainable(trainer.model)
    write_json(request.out / "audit.json", audit)
    guards.require_window(trainer.model.config, audit["longest_kept"])
    before = guards.sample_weights(trainer.model)
    metrics = request.out / "metrics.jsonl"
    resume = checkpoints.newest_complete(request.out / "checkpoints")
    _forget_after(metrics, checkpoints.step_of(resume) if resume else 0)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_recorder(metrics, request.step))

    trainer.train(resume_from_checkpoint=str(resume) if resume else None)

    rows = read_rows(metrics)
    guards.require_margins(rows)
    audit["moved"] = guards.require_moved(before, trainer.model)
    audit["steps"] = trainer.state.global_step
    audit["loss"] = rows[-1]["loss"]
    weights = _save(trainer.model, tokenizer, table, request.out)
    audit["weights"] = weights.name  # what `finished` looks for
    write_json(request.out / "audit.json", audit)
    _remove_checkpoints(request.out)
    return weights


def _recorder(metrics: Path, step: Step) -> TrainerCallback:
    """A callback that keeps the metrics, reports progress and seals checkpoints."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_log(
            self, _args: Any, state: Any, _control: Any, logs: Any, **_: Any
        ) -> None:
            if "loss" not in logs:  # the summary at the end
                return
            guards.require_finite(state.global_step, logs["loss"])
            guards.require_finite_gradient(state.global_step, logs.get("grad_norm", 0))
            row = {"step": state.global_step, **logs}
            row.pop("num_tokens", None)  # TRL counts from zero after a resume
            with RowWriter(metrics) as rows:
                rows.write(row)
            step(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")

        def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            checkpoints.seal(Path(args.output_dir, f"checkpoint-{state.global_step}"))

    return Recorder()


def _forget_after(metrics: Path, step: int) -> None:
    """Drops the rows of steps that will be taken again."""
    write_rows(metrics, [row for row in read_rows(metrics) if row["step"] <= step])


def _remove_checkpoints(out: Path) -> None:
    shutil.rmtree(out / "checkpoints", ignore_errors=True)


def _save(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    table: HfTable,
    out: Path,
) -> Path:
    """Writes the trained weights in one move; earlier ones make way."""
    from peft import PeftModel

    adapter = isinstance(model, PeftModel)
    target = out / ("adapter" if adapter else "model")
    partial = out / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    if adapter:
        # DPO's frozen copy of the start, the adapter "ref", stays behind.
        model.save_pretrained(partial, selected_adapters=["default"])
        (partial / "README.md").unlink(missing_ok=True)
        _name_base(partial / "adapter_config.json", table)
    else:
        model.to(compute_dtype()).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def _name_base(path: Path, table: HfTable) -> None:
    """Writes the base model's public name over the path that it was loaded from.

    Of a model in a directory that is the directory's own name: where it lies on
    this machine concerns nobody else.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    local = Path(table.name).is_absolute()
    config["base_model_name_or_path"] = Path(table.name).name if local else table.name
    config["revision"] = table.revision
    config["target_modules"] = sorted(config["target_modules"])  # a set to peft
    write_json(path, config)
