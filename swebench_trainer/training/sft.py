"""Supervised fine-tuning with TRL: the loss is on the answer and its end alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import SftTable
from swebench_trainer.training import failures, fit
from swebench_trainer.training.encoding import end_of_answer
from swebench_trainer.training.model import HfTable, load_tokenizer, load_trainable
from swebench_trainer.training.quiet import quiet_libraries
from swebench_trainer.training.rows import encode_rows, fit_rows
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
    arguments = fit.common_arguments(table, settings, request, len(kept))
    model = load_trainable(table, request.start, request.seed)
    exact = fit.exact_adapters(model)
    trainer = fit.prepared(SFTTrainer)(
        model=model,
        args=SFTConfig(**arguments),
        train_dataset=Dataset.from_list([row.as_sft() for row in kept]),
        processing_class=tokenizer,
    )
    fit.keep_in_fp32(trainer.model, exact)
    with failures.training(table, settings, audit, request.out):
        return fit.fit(trainer, tokenizer, table, request, audit)
