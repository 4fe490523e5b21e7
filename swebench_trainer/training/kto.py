"""KTO with TRL: answers that are good or bad by themselves.

TRL holds every reward against a reference point, the distance between the policy and its
reference, which it estimates from answers to other prompts. It makes these from fixed
batches of text; we make them from tokens. An answer's mismatch is the nearest one before
it, in the drawn order, that belongs to another prompt: with several answers of one issue
its neighbour might be no mismatch at all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import DpoTable
from swebench_trainer.training.batching.collator_audit import check_collated
from swebench_trainer.training.loop import training as fit
from swebench_trainer.training.loop.validation import hold_back
from swebench_trainer.training.models.loading import load_tokenizer
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.preference_models import load_policy
from swebench_trainer.training.tokens.encoding import end_of_answer
from swebench_trainer.training.tokens.rows import Encoded, encode_answers, fit_rows
from swebench_trainer.types import Pair

T = TypeVar("T")


def train_kto(
    table: HfTable, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
) -> Path:
    """Trains on the answers of pairs, whole or one-sided; see `train_dpo`.

    Raises:
        StageError: No answers fit, all are of one kind, or nothing was learned.
        RecipeError: The settings contradict each other or the model.
    """
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    tokenizer = load_tokenizer(table, request.start)
    kept, audit = fit_rows(
        encode_answers(tokenizer, pairs),
        request.max_tokens,
        settings.max_dropped,
        end_of_answer(tokenizer),
    )
    train, held = hold_back(kept, settings.validation, request.seed)
    train = shuffled(train, request.seed)
    weights = balance(train)
    audit |= weights
    model, reference = load_policy(table, request, settings)
    exact = fit.exact_adapters(model)
    trainer = fit.prepared(KTOTrainer)(
        model=model,
        ref_model=reference,
        args=KTOConfig(
            **fit.common_arguments(table, settings, request, len(train))
            | {"per_device_eval_batch_size": settings.micro_batch},
            beta=settings.beta,
            **weights,
        ),
        train_dataset=Dataset.from_list(examples(train)),
        eval_dataset=Dataset.from_list(examples(held, train)) if held else None,
        processing_class=tokenizer,
    )
    audit |= check_collated(
        trainer.data_collator, trainer.train_dataset, train, settings.micro_batch
    )
    fit.keep_in_fp32(trainer.model, exact)
    return fit.fit(trainer, table, request, audit, settings, held)


def shuffled(rows: Sequence[T], seed: int) -> list[T]:
    """The order in which TRL takes the rows, in each epoch; mismatches go with it."""
    return random.Random(f"{seed} kto").sample(rows, len(rows))  # noqa: S311  # no secret


def balance(rows: Sequence[Encoded]) -> dict[str, float]:
    """Weights with which good and bad answers count the same, and one on average.

    Raises:
        StageError: There is one kind only, so nothing is preferred to anything.
    """
    good = sum(row.good for row in rows)
    bad = len(rows) - good
    if not good or not bad:
        raise StageError(
            f"All {len(rows)} answers are {'good' if good else 'bad'}, so there is nothing to prefer.",
            hint="Draw more candidates, or let gold stand in: [pairs] gold_fallback = true.",
        )
    return {
        "desirable_weight": len(rows) / (2 * good),
        "undesirable_weight": len(rows) / (2 * bad),
    }


def examples(
    rows: Sequence[Encoded], others: Sequence[Encoded] = ()
) -> list[dict[str, Any]]:
    """The rows that TRL's collator takes, in their order.

    Args:
        rows: Answers.
        others: Where their mismatches are taken from, if not from the rows themselves.
    """
    return [
        {
            "prompt_ids": row.prompt,
            "completion_ids": row.answers[0],
            "KL_completion_ids": mismatched(others or rows, number, row.prompt).answers[
                0
            ],
            "label": row.good,
        }
        for number, row in enumerate(rows)
    ]


def mismatched(rows: Sequence[Encoded], number: int, prompt: list[int]) -> Encoded:
    """The nearest row before a place, the last coming before the first, of another prompt.

    Raises:
        StageError: There is no other prompt.
    """
    for back in range(1, len(rows) + 1):
        row = rows[(number - back) % len(rows)]
        if row.prompt != prompt:
            return row
    raise StageError(
        "KTO needs answers to two prompts or more.",
        hint="Train on more instances, or choose another [dpo] loss.",
    )
