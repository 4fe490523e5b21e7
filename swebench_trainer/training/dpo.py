"""Direct preference optimization with TRL; the reference is the model at its start."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import DpoTable
from swebench_trainer.training import failures
from swebench_trainer.training.batching import shared_prefix
from swebench_trainer.training.batching.microbatches import Layout, Row, in_order
from swebench_trainer.training.batching.samplers import sampler_for
from swebench_trainer.training.kto import train_kto
from swebench_trainer.training.loop.training import Training, finished, for_token_rows
from swebench_trainer.training.models import attention
from swebench_trainer.training.models.loading import base_of, load_policy_and_reference
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.rows import encode_pairs
from swebench_trainer.types import Pair


@silence_libraries()
def train_dpo(
    table: HfTable, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
) -> Path:
    """Trains on pairs; see `Backend.train_dpo`.

    Raises:
        StageError: No pairs fit, or the model learned nothing.
        RecipeError: The settings contradict each other or the model.
    """
    failures.require_bitsandbytes()
    from trl import DPOConfig, DPOTrainer

    if weights := finished(request.out):
        return weights
    if settings.loss == "kto":
        return train_kto(table, pairs, settings, request)

    # Rows of tokens.
    training = Training.prepare(
        table, settings, request, lambda tokenizer: encode_pairs(tokenizer, pairs)
    )
    audit = training.audit

    # The policy, and its reference where that is a model of its own.
    training.table = attention.settled(table, masked=settings.shared_prefix)
    policy, reference = load_policy_and_reference(
        training.table, request, sharded=training.sharded
    )
    bases = [base_of(model) for model in (policy, reference) if model is not None]
    audit["attention"] = bases[0].config._attn_implementation

    # Batches: whether a prompt is read once for both answers, and the order of pairs.
    obstacle = shared_prefix.obstacle(bases[0]) if settings.shared_prefix else None
    shared = settings.shared_prefix and not obstacle
    audit["shared_prefix"] = shared
    audit["prompts_read_twice"] = obstacle
    sampler = sampler_for(training.train, settings, request.seed)
    collator = None
    if shared:
        collator = shared_prefix.SharedPrefixCollator(training.tokenizer.pad_token_id)

    # TRL's trainer.
    trainer = training.build(
        for_token_rows(DPOTrainer, sampler),
        partial(DPOConfig, beta=settings.beta, **losses(settings)),
        _layout(settings, shared=shared),
        model=policy,
        ref_model=reference,
        train=[row.as_preference() for row in training.train],
        held_out=[row.as_preference() for row in training.held_out],
        data_collator=collator,
    )
    for base in bases if shared else ():
        shared_prefix.share_prefixes(base)
    return training.fit(trainer)


def losses(settings: DpoTable) -> dict[str, Any]:
    """Arguments of `DPOConfig` for the loss and its weights."""
    kinds: dict[str, float] = {settings.loss: 1.0}
    if settings.sft_weight:
        kinds["sft"] = settings.sft_weight
    return {
        "loss_type": list(kinds),
        "loss_weights": list(kinds.values()),
        "label_smoothing": settings.label_smoothing,
    }


def _layout(settings: DpoTable, *, shared: bool) -> Layout | None:
    """How the pairs of a step are split into parts; `None` leaves that to the trainer.

    The trainer averages the means of its micro-batches, so pairs in a smaller one at the
    end of an epoch would count for more. With several processes every micro-batch is
    full, so this cannot happen.
    """
    if settings.micro_tokens:
        return Layout(settings.micro_tokens, _length_shared if shared else _length)
    if settings.processes == 1 and settings.micro_batch > 1:
        return Layout(settings.micro_batch, lambda _: 1, in_order)
    return None


def _length_shared(row: Row) -> int:
    """Tokens of a pair in one row with a shared prompt."""
    return sum(len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))


def _length(row: Row) -> int:
    """Tokens of a pair in two rows, the shorter one padded."""
    answers = (len(row[name]) for name in ("chosen_ids", "rejected_ids"))
    return 2 * (len(row["prompt_ids"]) + max(answers))
