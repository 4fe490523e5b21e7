"""Direct preference optimisation with TRL, from and against the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import DpoTable
from swebench_trainer.training import failures, fit
from swebench_trainer.training.encoding import end_of_answer
from swebench_trainer.training.model import (
    HfTable,
    load_model,
    load_tokenizer,
    load_trainable,
)
from swebench_trainer.training.quiet import quiet_libraries
from swebench_trainer.training.rows import Encoded, encode_pairs, fit_rows
from swebench_trainer.training.shared_prefix import (
    PromptSampler,
    SharedPrefixCollator,
    share_prefixes,
    why_not,
)
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
    failures.require_bitsandbytes()
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
    bases = [_base(m) for m in (model, reference) if m is not None]
    obstacle = why_not(bases[0]) if settings.shared_prefix else None
    shared = settings.shared_prefix and not obstacle
    audit |= {"shared_prefix": shared, "prompts_read_twice": obstacle}
    trainer = _ordered(fit.prepared(DPOTrainer), settings, kept, request.seed)(
        model=model,
        ref_model=reference,
        args=DPOConfig(**arguments, beta=settings.beta, **losses(settings)),
        train_dataset=Dataset.from_list([row.as_preference() for row in kept]),
        processing_class=tokenizer,
        data_collator=SharedPrefixCollator(tokenizer.pad_token_id) if shared else None,
    )
    for base in bases if shared else ():
        share_prefixes(base)
    fit.keep_in_fp32(trainer.model, exact)
    with failures.training(table, settings, audit, request.out):
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


def _base(model: Any) -> Any:
    """The model of transformers, without PEFT around it."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def _ordered(
    trainer_class: type[Any], settings: DpoTable, rows: Sequence[Encoded], seed: int
) -> type[Any]:
    """A trainer that takes the pairs of one prompt together, if it is to."""
    if not settings.group_by_prompt:
        return trainer_class
    sampler = PromptSampler([tuple(row.prompt) for row in rows], seed)

    class Ordered(trainer_class):  # type: ignore[misc]  # chosen by the caller
        def _get_train_sampler(self, *_: Any) -> Any:
            return sampler

    return Ordered
