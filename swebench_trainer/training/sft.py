"""Supervised fine-tuning with TRL: the loss is on the answer and its end.

It is on the prompt too only if the recipe says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import SftTable
from swebench_trainer.training import failures
from swebench_trainer.training.batching import packing
from swebench_trainer.training.batching.collator_audit import check_collated
from swebench_trainer.training.batching.microbatches import (
    Layout,
    Row,
    in_parts,
    packed,
    step_at_once,
)
from swebench_trainer.training.batching.prompt_loss import weighing
from swebench_trainer.training.batching.samplers import length_order, ordered
from swebench_trainer.training.loop import training as fit
from swebench_trainer.training.loop.validation import hold_back
from swebench_trainer.training.models import attention
from swebench_trainer.training.models.loading import load_tokenizer, load_trainable
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.silence import quiet_libraries
from swebench_trainer.training.tokens.encoding import end_of_answer
from swebench_trainer.training.tokens.rows import encode_rows, fit_rows
from swebench_trainer.types import SftRow


@quiet_libraries()
def train_sft(
    table: HfTable, rows: Sequence[SftRow], settings: SftTable, request: TrainRequest
) -> Path:
    """Trains on prompt and completion; see `Backend.train_sft`.

    Raises:
        StageError: No rows fit, or nothing was learned.
        RecipeError: The settings contradict each other or the model.
    """
    failures.require_bitsandbytes()
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    if weights := fit.finished(request.out):
        return weights
    tokenizer = load_tokenizer(table, request.start)
    kept, audit = fit_rows(
        encode_rows(tokenizer, rows),
        request.max_tokens,
        settings.max_dropped,
        end_of_answer(tokenizer),
    )
    if settings.prompt_loss:
        audit["trained_tokens"] += sum(len(row.prompt) - 1 for row in kept)
    train, held = hold_back(kept, settings.validation, request.seed)
    arguments = fit.common_arguments(table, settings, request, len(train))
    table = attention.settled(table, masked=False)
    model = load_trainable(
        table, request.start, request.seed, sharded=settings.sharding == "fsdp"
    )
    exact = fit.exact_adapters(model)
    obstacle = packing.why_not(fit.base_of(model)) if settings.packing else None
    audit |= {"packed": settings.packing and not obstacle, "padded_because": obstacle}
    audit["attention"] = fit.base_of(model).config._attn_implementation
    layout = _layout(model, settings, audit)
    sampler = length_order(train, settings, request.seed)
    trainer_class = weighing(fit.prepared(SFTTrainer), settings.prompt_loss)
    trainer_class = ordered(trainer_class, sampler)
    if layout:
        trainer_class = in_parts(trainer_class, layout)
        arguments = step_at_once(arguments)
    trainer = trainer_class(
        model=model,
        args=SFTConfig(**arguments),
        train_dataset=Dataset.from_list(
            [row.as_sft(prompt_loss=settings.prompt_loss) for row in train]
        ),
        eval_dataset=Dataset.from_list([row.as_sft() for row in held])
        if held
        else None,
        processing_class=tokenizer,
    )
    collate = (layout and layout.collate) or trainer.data_collator
    audit |= check_collated(
        *(collate, trainer.train_dataset, train, settings.micro_batch),
        prompt_loss=settings.prompt_loss > 0,
    )
    fit.keep_in_fp32(trainer.model, exact)
    return fit.fit(trainer, table, request, audit, settings, held)


def _layout(model: Any, settings: SftTable, audit: dict[str, Any]) -> Layout | None:
    """How the rows of a step are put on the device; `None` means a few at a time."""

    def length(row: Row) -> int:
        return len(row["input_ids"])

    if audit["packed"]:
        base = fit.base_of(model)
        packing.attend_by_sequence(base)
        # No more than padding could come to, so that what fitted in memory still does.
        room = settings.micro_tokens or settings.micro_batch * audit["longest_kept"]
        return Layout(room, length, packed, packing.collator(base))
    if settings.micro_tokens:
        return Layout(settings.micro_tokens, length)
    return None
