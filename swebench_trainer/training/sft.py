"""Supervised fine-tuning with TRL: the loss is on the answer and its end token.

With `[sft] prompt_loss` it is also on the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import SftTable
from swebench_trainer.training import failures
from swebench_trainer.training.batching import packing
from swebench_trainer.training.batching.microbatches import Layout, Row, packed
from swebench_trainer.training.batching.prompt_loss import weighted
from swebench_trainer.training.batching.samplers import sampler_for
from swebench_trainer.training.loop.training import Training, finished, for_token_rows
from swebench_trainer.training.models import attention
from swebench_trainer.training.models.loading import base_of, load_trainable
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.rows import encode_rows
from swebench_trainer.types import SftRow


@silence_libraries()
def train_sft(
    table: HfTable, rows: Sequence[SftRow], settings: SftTable, request: TrainRequest
) -> Path:
    """Trains on prompts and completions; see `Backend.train_sft`.

    Raises:
        StageError: No rows fit, or the model learned nothing.
        RecipeError: The settings contradict each other or the model.
    """
    failures.require_bitsandbytes()
    from trl import SFTConfig, SFTTrainer

    if weights := finished(request.out):
        return weights

    # Rows of tokens.
    training = Training.prepare(
        table, settings, request, lambda tokenizer: encode_rows(tokenizer, rows)
    )
    audit = training.audit
    if settings.prompt_loss:
        prompts = [row.prompt for row in (*training.train, *training.held_out)]
        audit["trained_tokens"] += sum(len(prompt) - 1 for prompt in prompts)

    # The model: fresh adapters, earlier ones, or every weight.
    training.table = attention.settled(table, masked=False)
    model = load_trainable(
        training.table, request.start, request.seed, sharded=training.sharded
    )
    audit["attention"] = base_of(model).config._attn_implementation

    # Batches: which rows go on the device together, and in which order.
    obstacle = packing.obstacle(base_of(model)) if settings.packing else None
    audit["packed"] = settings.packing and not obstacle
    audit["padded_because"] = obstacle
    layout = _layout(model, settings, audit)
    sampler = sampler_for(training.train, settings, request.seed)

    # TRL's trainer.
    trainer = training.build(
        weighted(for_token_rows(SFTTrainer, sampler), settings.prompt_loss),
        SFTConfig,
        layout,
        model=model,
        train=[row.as_sft(prompt_loss=settings.prompt_loss) for row in training.train],
        held_out=[row.as_sft() for row in training.held_out],
    )
    return training.fit(trainer)


def _layout(model: Any, settings: SftTable, audit: dict[str, Any]) -> Layout | None:
    """How the rows of a step are split into parts; `None` leaves that to the trainer."""

    def length(row: Row) -> int:
        return len(row["input_ids"])

    if audit["packed"]:
        base = base_of(model)
        packing.attend_by_sequence(base)
        # At most the size of a padded micro-batch, so that memory does not grow.
        room = settings.micro_tokens or settings.micro_batch * audit["longest_kept"]
        return Layout(room, length, packed, packing.collator(base))
    if settings.micro_tokens:
        return Layout(settings.micro_tokens, length)
    return None
