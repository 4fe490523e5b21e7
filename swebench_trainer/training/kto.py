"""KTO with TRL: each answer is labeled good or bad, without a partner.

TRL compares every reward with a reference point: the KL divergence between the policy
and its reference, estimated from mismatched pairs of prompts and answers. TRL builds
these from fixed batches of text; we build them from tokens. The mismatch of an answer is
the nearest answer before it, in shuffled order, to another prompt. Its direct neighbor
could answer the same prompt, because an issue may have several answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import DpoTable
from swebench_trainer.store.draw import generator
from swebench_trainer.training.loop.training import Training, for_token_rows
from swebench_trainer.training.models.loading import load_policy_and_reference
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.tokens.rows import Encoded, encode_answers
from swebench_trainer.types import Pair

T = TypeVar("T")


def train_kto(
    table: HfTable, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
) -> Path:
    """Trains on the answers of pairs, complete or one-sided; see `train_dpo`.

    Raises:
        StageError: No answers fit, all have the same label, or the model learned
            nothing.
        RecipeError: The settings contradict each other or the model.
    """
    from trl import KTOConfig, KTOTrainer

    training = Training.prepare(
        table, settings, request, lambda tokenizer: encode_answers(tokenizer, pairs)
    )
    training.train = shuffled(training.train, request.seed)
    weights = balance(training.train)
    training.audit |= weights
    policy, reference = load_policy_and_reference(
        table, request, sharded=training.sharded
    )
    trainer = training.build(
        for_token_rows(KTOTrainer),
        partial(KTOConfig, beta=settings.beta, **weights),
        model=policy,
        ref_model=reference,
        train=examples(training.train),
        held_out=examples(training.held_out, training.train),
    )
    return training.fit(trainer)


def shuffled(rows: Sequence[T], seed: int) -> list[T]:
    """The order in which TRL takes the rows in every epoch, mismatches included."""
    return generator(seed, "kto").sample(rows, len(rows))


def balance(rows: Sequence[Encoded]) -> dict[str, float]:
    """Weights that make good and bad answers count the same, with a mean of one.

    Raises:
        StageError: All answers have the same label, so nothing can be preferred.
    """
    good = sum(row.good for row in rows)
    bad = len(rows) - good
    if not good or not bad:
        raise StageError(
            f"All {len(rows)} answers are {'good' if good else 'bad'}, so KTO cannot prefer any.",
            hint='Sample more candidates, or set [pairs] use = "unpaired": where all candidates fail, its gold_fallback takes the gold patch as a good answer.',
        )
    return {
        "desirable_weight": len(rows) / (2 * good),
        "undesirable_weight": len(rows) / (2 * bad),
    }


def examples(
    rows: Sequence[Encoded], others: Sequence[Encoded] = ()
) -> list[dict[str, Any]]:
    """Rows for TRL's collator, in order.

    Args:
        rows: Answers.
        others: Rows to take the mismatches from; by default `rows`.
    """
    return [
        {
            "prompt_ids": row.prompt,
            "completion_ids": row.answers[0],
            "KL_completion_ids": mismatch(others or rows, number, row.prompt),
            "label": row.good,
        }
        for number, row in enumerate(rows)
    ]


def mismatch(rows: Sequence[Encoded], number: int, prompt: list[int]) -> list[int]:
    """The nearest answer before a position to another prompt; the first follows the last.

    Raises:
        StageError: All rows have this prompt.
    """
    for back in range(1, len(rows) + 1):
        row = rows[(number - back) % len(rows)]
        if row.prompt != prompt:
            return row.answers[0]
    raise StageError(
        "KTO needs answers to at least two prompts.",
        hint="Train on more instances, or choose another [dpo] loss.",
    )
