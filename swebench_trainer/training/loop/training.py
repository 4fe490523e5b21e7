"""One training: what SFT, DPO and KTO share around their TRL trainer."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import DpoTable, SftTable
from swebench_trainer.store.jsonl import read_json, read_rows, write_json, write_rows
from swebench_trainer.training import failures
from swebench_trainer.training.batching.microbatches import (
    Layout,
    all_rows_at_once,
    in_parts,
)
from swebench_trainer.training.batching.samplers import EpochSampler
from swebench_trainer.training.distributed import ranks
from swebench_trainer.training.loop import (
    activation_checkpointing,
    callbacks,
    checkpoints,
    guards,
    trackers,
    validation,
)
from swebench_trainer.training.models import saving
from swebench_trainer.training.models.loading import (
    base_of,
    declared_dtype,
    load_tokenizer,
)
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.tokens.encoding import end_of_answer
from swebench_trainer.training.tokens.rows import Encoded, fit_rows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, Trainer

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"

_SCHEDULES = {"constant": "constant_with_warmup"}
"""Schedules with another name in transformers."""


@dataclass
class Training:
    """The settings and rows of one training, and the audit that it fills in.

    Attributes:
        table: The recipe's `[model]`.
        settings: The recipe's `[sft]` or `[dpo]`.
        request: The stage's request.
        tokenizer: The model's.
        train: Rows to train on.
        held_out: Rows for the held-out loss.
        audit: Counts and results of checks; written to `audit.json` before the first
            step, and again with the name of the weights once these are saved.
    """

    table: HfTable
    settings: SftTable | DpoTable
    request: TrainRequest
    tokenizer: PreTrainedTokenizerBase
    train: list[Encoded]
    held_out: list[Encoded]
    audit: dict[str, Any]

    @classmethod
    def prepare(
        cls,
        table: HfTable,
        settings: SftTable | DpoTable,
        request: TrainRequest,
        encode: Callable[[PreTrainedTokenizerBase], list[Encoded]],
    ) -> Training:
        """Encodes the rows, drops those that are too long, and holds some out.

        Raises:
            StageError: Too few rows are left.
        """
        tokenizer = load_tokenizer(table, request.start)
        kept, audit = fit_rows(
            encode(tokenizer),
            request.max_tokens,
            settings.max_dropped,
            end_of_answer(tokenizer),
        )
        train, held_out = validation.hold_out(kept, settings.validation, request.seed)
        return cls(table, settings, request, tokenizer, train, held_out, audit)

    @property
    def sharded(self) -> bool:
        """Whether each process keeps only a part of the weights."""
        return self.settings.sharding == "fsdp"

    def arguments(self) -> dict[str, Any]:
        """Arguments that `SFTConfig`, `DPOConfig` and `KTOConfig` have in common."""
        import torch

        settings = self.settings
        at_once = settings.micro_batch * settings.processes  # divides batch_size
        cuda = torch.cuda.is_available()
        kto = isinstance(settings, DpoTable) and settings.loss == "kto"
        steps = settings.epochs * math.ceil(len(self.train) / settings.batch_size)
        return {
            "output_dir": str(self.request.out / "checkpoints"),
            "per_device_train_batch_size": settings.micro_batch,
            # The held-out loss is a mean over rows, independent of micro_batch. KTO's is
            # relative to the other rows of its batch.
            "per_device_eval_batch_size": settings.micro_batch if kto else 1,
            "gradient_accumulation_steps": settings.batch_size // at_once,
            "num_train_epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": _SCHEDULES.get(settings.schedule, settings.schedule),
            # Rounded down: a warm-up starts at a rate of zero, and a training of one
            # step would have no other.
            "warmup_steps": int(settings.warmup_ratio * steps),
            "weight_decay": settings.weight_decay,
            "max_grad_norm": settings.max_grad_norm,
            "max_length": None,  # our rows fit; TRL would truncate answers
            "activation_checkpointing": False,  # `fit` turns it on
            "seed": self.request.seed,
            "data_seed": self.request.seed,
            "use_cpu": not cuda,
            "bf16": cuda,
            "dataloader_pin_memory": cuda,
            "save_strategy": "steps" if settings.save_every else "no",
            "save_steps": settings.save_every or 1,
            "save_total_limit": 2,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,  # the guards must see a NaN
            "disable_tqdm": True,
            **trackers.arguments(settings.trackers, self.request.out),
            **ranks.arguments(settings),
        }

    def build(
        self,
        trainer_class: type[Any],
        config: Callable[..., Any],
        layout: Layout | None = None,
        *,
        train: list[dict[str, Any]],
        held_out: list[dict[str, Any]],
        **options: Any,
    ) -> Any:
        """Creates a TRL trainer whose trainable weights are in fp32.

        Args:
            trainer_class: See `for_token_rows`.
            config: The class of the trainer's arguments.
            layout: How to split the rows of a step; `None` leaves that to the trainer.
            train: The rows of `self.train`, for the trainer's collator.
            held_out: The rows of `self.held_out`, for the trainer's collator.
            options: Further arguments of the trainer, such as its model.

        Raises:
            StageError: The collator changes answers.
        """
        from datasets import Dataset

        arguments = self.arguments()
        if layout:
            trainer_class = in_parts(trainer_class, layout)
            arguments = all_rows_at_once(arguments)
        exact = exact_adapters(options["model"])
        trainer = trainer_class(
            args=config(**arguments),
            processing_class=self.tokenizer,
            train_dataset=Dataset.from_list(train),
            eval_dataset=Dataset.from_list(held_out) if held_out else None,
            **options,
        )
        keep_in_fp32(trainer.model, exact)
        self.audit |= guards.audit_collator(
            (layout and layout.collate) or trainer.data_collator,
            trainer.train_dataset,
            self.train,
            self.settings.micro_batch,
            prompt_loss=getattr(self.settings, "prompt_loss", 0) > 0,
        )
        return trainer

    def fit(self, trainer: Trainer) -> Path:
        """Trains, from the newest complete checkpoint if there is one, and saves.

        Args:
            trainer: From `build`, before its first step.

        Returns:
            `adapter/` or `model/` of `request.out`.

        Raises:
            RecipeError: Rows are longer than the model's context window.
            StageError: A guard finds that the model learned nothing.
        """
        with failures.training(self.table, self.settings, self.audit, self.request.out):
            before = self._check_before(trainer)
            self._run(trainer)
            dtype = declared_dtype(self.table, self.request.start)
            self._check_after(trainer, before, None if self.table.lora else dtype)
            state = ranks.whole_state(trainer)
            save = partial(self._save, trainer.model, state, dtype)
            return ranks.run_on_first(save)

    def _check_before(self, trainer: Trainer) -> dict[str, torch.Tensor]:
        """Checks model and rows before the first step; samples the weights."""
        audit = self.audit
        if ranks.size() > 1:  # rows are repeated so that each process has equally many
            at_once = trainer.args.train_batch_size * ranks.size()
            audit["repeated_rows"] = -len(trainer.train_dataset) % at_once
        audit["trainable_parameters"] = guards.require_trainable(trainer.model)
        guards.require_window(trainer.model.config, audit["longest_kept"])
        audit["checkpointing"] = activation_checkpointing.settle(
            trainer,
            base_of(trainer.model),
            self.table.checkpointing,
            self.request.out,
        )
        return guards.sample_weights(trainer.model)

    def _run(self, trainer: Trainer) -> None:
        """Runs the remaining steps."""
        from transformers import PrinterCallback

        metrics = self.request.out / METRICS
        resume = ranks.run_on_first(self._find_checkpoint)
        ranks.require_same_sharding(trainer, resume)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(callbacks.recorder(metrics, self.request.step))
        if self.held_out:
            trainer.add_callback(validation.keeper(metrics, self.settings))
        if self.settings.milestones:
            save = partial(saving.save, table=self.table, start=self.request.start)
            keeper = callbacks.milestone_keeper(
                self.request.out, self.settings.milestones, save
            )
            trainer.add_callback(keeper)
        if self.settings.optimizer == "muon":
            from swebench_trainer.training.loop.muon import muon_for

            trainer.optimizer = muon_for(
                trainer.model, trainer.args.learning_rate, trainer.args.weight_decay
            )
        if not validation.is_over(read_rows(metrics), self.settings):
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        ranks.barrier()  # the first process has now written the last step's metrics

    def _find_checkpoint(self) -> Path | None:
        """Finds the checkpoint to resume from, and writes the first audit."""
        out = self.request.out
        metrics = read_rows(out / METRICS)
        lost: list[str] = []
        resume = validation.newest_usable(out / "checkpoints", metrics, lost.append)
        if lost:
            self.audit["lost_checkpoints"] = lost
            log.warning("%s: resumed from %s", "; ".join(lost), resume or "the start")
        write_json(out / "audit.json", self.audit)
        _drop_rows_after(out / METRICS, checkpoints.step_of(resume) if resume else 0)
        return resume

    def _check_after(
        self,
        trainer: Trainer,
        before: Mapping[str, torch.Tensor],
        dtype: torch.dtype | None,
    ) -> None:
        """Restores the best weights, and checks that the model has learned.

        Args:
            trainer: After its last step.
            before: The weights before the first step, from `sample_weights`.
            dtype: Precision of the saved model; `None` for adapters, which are saved
                in fp32.
        """
        out, audit = self.request.out, self.audit
        rows = read_rows(out / METRICS)
        if self.held_out:
            best = validation.restore_best(trainer.model, out / "checkpoints", rows)
            audit["validation"] = validation.report(best, rows, self.held_out)
        guards.require_margins(rows)
        steps = sum(row.get("learning_rate", 0) > 0 for row in rows)
        audit["moved"] = guards.require_moved(before, trainer.model, steps)
        audit["steps"] = rows[-1]["step"]
        audit["loss"] = [row["loss"] for row in rows if "loss" in row][-1]
        if dtype is not None:
            audit["moved_as_saved"] = guards.require_saved(before, trainer.model, dtype)

    def _save(
        self,
        model: Any,
        state: Mapping[str, torch.Tensor] | None,
        dtype: torch.dtype,
    ) -> Path:
        """Saves the weights and the final audit."""
        out = self.request.out
        weights = saving.save(out, model, state, self.table, self.request.start, dtype)
        self.audit["weights"] = weights.name  # `finished` looks for this
        write_json(out / "audit.json", self.audit)
        _remove_checkpoints(out)
        return weights


def finished(out: Path) -> Path | None:
    """The weights of a training that has ended; `None` while it has not.

    A run can be killed between the end of a training and the end of its stage.

    Args:
        out: Directory of the stage.
    """
    name = (read_json(out / "audit.json") or {}).get("weights")
    if not name or not (out / name).is_dir():
        return None
    _remove_checkpoints(out)
    return out / str(name)


def for_token_rows(
    trainer_class: type[Any], sampler: EpochSampler | None = None
) -> type[Any]:
    """A TRL trainer that takes rows of tokens unchanged and sends nothing anywhere.

    Args:
        trainer_class: TRL's trainer.
        sampler: Order of the training rows; `None` means the trainer's random order.
    """

    class TokenRowTrainer(trainer_class):  # type: ignore[misc]  # chosen by the caller
        def __init__(self, *, args: Any, **options: Any) -> None:
            if args.n_gpu > 1:
                # The trainer would otherwise use every visible GPU, each with a copy of
                # the model and its own micro-batch. `processes` is the way to use them.
                args._n_gpu = 1
            super().__init__(args=args, **options)

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *args: Any) -> Any:
            return super()._get_train_sampler(*args) if sampler is None else sampler

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Does nothing: the publisher writes the card, with graded numbers."""

        def _send_telemetry(self) -> None:
            """Does nothing: no data leaves the machine."""

    return TokenRowTrainer


def exact_adapters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the adapters of a 4-bit model, which TRL's trainers round to bf16."""
    if not getattr(model, "is_loaded_in_4bit", False):
        return {}
    return {name: p.detach().clone() for name, p in guards.trainable(model).items()}


def keep_in_fp32(model: torch.nn.Module, exact: Mapping[str, torch.Tensor]) -> None:
    """Casts the trainable weights, and with them the optimizer's state, to fp32.

    In bf16 a step of less than about half a percent of a weight rounds away, and at
    DPO's learning rates nearly every step is that small.

    Args:
        model: The trainer's model, before its optimizer exists.
        exact: Values to restore, from `exact_adapters`.
    """
    for name, p in guards.trainable(model).items():
        p.data = exact.get(name, p.data).float()


def _drop_rows_after(metrics: Path, step: int) -> None:
    """Drops the metrics of steps that will be repeated."""
    write_rows(metrics, [row for row in read_rows(metrics) if row["step"] <= step])


def _remove_checkpoints(out: Path) -> None:
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
