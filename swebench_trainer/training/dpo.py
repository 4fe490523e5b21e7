"""Direct preference optimisation with TRL, from and against the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import DpoTable
from swebench_trainer.training import fit
from swebench_trainer.training.encoding import end_of_answer
from swebench_trainer.training.model import (
    HfTable,
    load_model,
    load_tokenizer,
    load_trainable,
)
from swebench_trainer.training.quiet import quiet_libraries
from swebench_trainer.training.rows import encode_pairs, fit_rows
from swebench_trainer.types import Pair


@quiet_libraries()
def train_dpo(
    table: HfTable, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
) -> Path:
    """Trains on pairs; see `Backend.train_dpo`.

    The reference is what the training starts from. With adapters TRL keeps a
    frozen copy of them, called "ref", on the same base; without, the model is
    loaded twice.

    Raises:
        StageError: No pairs fit, or nothing was learned.
        RecipeError: The settings contradict each other or the model.
    """
    from datasets import Dataset
    from peft import PeftModel
    from trl import DPOConfig, DPOTrainer

    if weights := fit.finished(request.out):
        return weights
    tokenizer = load_tokenizer(table, request.start)
    kept, audit = fit_rows(
        encode_pairs(tokenizer, pairs),
        request.max_tokens,
        settings.max_dropped,
        end_of_answer(tokenizer),
    )
    arguments = fit.common_arguments(table, settings, request, len(kept))
    model = load_trainable(table, request.start, request.seed)
    reference = (
        None if isinstance(model, PeftModel) else load_model(table, request.start)
    )
    exact = fit.exact_adapters(model)
    trainer = fit.prepared(DPOTrainer)(
        model=model,
        ref_model=reference,
        args=DPOConfig(**arguments, beta=settings.beta, **losses(settings)),
        train_dataset=Dataset.from_list([row.as_preference() for row in kept]),
        processing_class=tokenizer,
    )
    fit.keep_in_fp32(trainer.model, exact)
    return fit.fit(trainer, tokenizer, table, request, audit)


def losses(settings: DpoTable) -> dict[str, Any]:
    """The arguments of `DPOConfig` that say what is minimised."""
    kinds: dict[str, float] = {settings.loss: 1.0}
    if settings.sft_weight:
        kinds["sft"] = settings.sft_weight
    return {
        "loss_type": list(kinds),
        "loss_weights": list(kinds.values()),
        "label_smoothing": settings.label_smoothing,
    }
