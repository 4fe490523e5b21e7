"""Direct preference optimisation with TRL, from and against the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import DpoTable
from swebench_trainer.training import failures
from swebench_trainer.training.batching.collator_audit import check_collated
from swebench_trainer.training.batching.microbatches import (
    Layout,
    Row,
    in_parts,
    in_turn,
    step_at_once,
)
from swebench_trainer.training.batching.samplers import length_order, ordered
from swebench_trainer.training.batching.shared_prefix import (
    PromptSampler,
    SharedPrefixCollator,
    share_prefixes,
    why_not,
)
from swebench_trainer.training.kto import train_kto
from swebench_trainer.training.loop import training as fit
from swebench_trainer.training.loop.validation import hold_back
from swebench_trainer.training.models import attention
from swebench_trainer.training.models.loading import load_tokenizer
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.preference_models import load_policy
from swebench_trainer.training.silence import quiet_libraries
from swebench_trainer.training.tokens.encoding import end_of_answer
from swebench_trainer.training.tokens.rows import Encoded, encode_pairs, fit_rows
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
    from trl import DPOConfig, DPOTrainer

    if weights := fit.finished(request.out):
        return weights
    if settings.loss == "kto":
        return train_kto(table, pairs, settings, request)
    tokenizer = load_tokenizer(table, request.start)
    kept, audit = fit_rows(
        encode_pairs(tokenizer, pairs),
        request.max_tokens,
        settings.max_dropped,
        end_of_answer(tokenizer),
    )
    train, held = hold_back(kept, settings.validation, request.seed)
    arguments = fit.common_arguments(table, settings, request, len(train))
    table = attention.settled(table, masked=settings.shared_prefix)
    model, reference = load_policy(table, request, settings)
    exact = fit.exact_adapters(model)
    bases = [fit.base_of(m) for m in (model, reference) if m is not None]
    obstacle = why_not(bases[0]) if settings.shared_prefix else None
    shared = settings.shared_prefix and not obstacle
    audit |= {"shared_prefix": shared, "prompts_read_twice": obstacle}
    audit["attention"] = bases[0].config._attn_implementation
    sampler = _order(train, settings, request.seed)
    trainer_class = ordered(fit.prepared(DPOTrainer), sampler)
    if layout := _layout(settings, shared=shared):
        trainer_class = in_parts(trainer_class, layout)
        arguments = step_at_once(arguments)
    trainer = trainer_class(
        model=model,
        ref_model=reference,
        args=DPOConfig(**arguments, beta=settings.beta, **losses(settings)),
        train_dataset=Dataset.from_list([row.as_preference() for row in train]),
        eval_dataset=(
            Dataset.from_list([row.as_preference() for row in held]) if held else None
        ),
        processing_class=tokenizer,
        data_collator=SharedPrefixCollator(tokenizer.pad_token_id) if shared else None,
    )
    for base in bases if shared else ():
        share_prefixes(base)
    audit |= check_collated(
        trainer.data_collator, trainer.train_dataset, train, settings.micro_batch
    )
    fit.keep_in_fp32(trainer.model, exact)
    return fit.fit(trainer, table, request, audit, settings, held)


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


def _order(rows: Sequence[Encoded], settings: DpoTable, seed: int) -> Any:
    """What takes the pairs of one prompt, or of like length, together; else `None`."""
    if settings.group_by_prompt:
        return PromptSampler([tuple(row.prompt) for row in rows], seed)
    return length_order(rows, settings, seed)


def _layout(settings: DpoTable, *, shared: bool) -> Layout | None:
    """How the pairs of a step become parts; `None` leaves them to the trainer.

    It takes a mean of the means of the parts, in which a pair of the smaller part at an
    epoch's end counts for more. Several processes have no such part: they are given
    full ones.
    """
    if settings.micro_tokens:
        return Layout(settings.micro_tokens, _length_shared if shared else _length)
    if settings.processes == 1 and settings.micro_batch > 1:
        return Layout(settings.micro_batch, lambda _: 1, in_turn)
    return None


def _length_shared(row: Row) -> int:
    """Tokens of a pair that is read as one row."""
    return sum(len(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))


def _length(row: Row) -> int:
    """Tokens of a pair that is read as two rows, the shorter filled up."""
    answers = (len(row[name]) for name in ("chosen_ids", "rejected_ids"))
    return 2 * (len(row["prompt_ids"]) + max(answers))
