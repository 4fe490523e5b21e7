"""Checks that a training has taught the model something.

Each guard is for a way in which a training can end without an error and change nothing:
no trainable weights, steps that round away, a policy that equals its reference, a
reference that is the base model, a collator that truncates answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from swebench_trainer.errors import RecipeError, StageError
from swebench_trainer.training.tokens.rows import IGNORED, Encoded

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

_SAMPLED = 1 << 16
"""Elements of each tensor to compare, to limit memory."""

LEAST_MOVED = 0.5
"""Share of elements that must change. In fp32 nearly all do; in bf16 few do if steps are
small, because most of them round away."""

LEAST_SAVED = 0.01
"""Share of elements that must still differ in the precision of the saved model."""

_JUDGED = 4
"""Minimum number of steps to judge a training: in the first ones the learning rate is
close to zero, and half of a fresh adapter has no gradient yet."""

_REWARDS = ("rewards/margins", "rewards/chosen", "rewards/rejected")


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that a training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def require_trainable(model: torch.nn.Module) -> int:
    """The number of trainable elements.

    Raises:
        StageError: The number is zero.
    """
    count = sum(p.numel() for p in trainable(model).values())
    if not count:
        raise StageError(
            "The model has no trainable weights.",
            hint="Check [model] lora: its targets must be names of layers of this model.",
        )
    return count


def sample_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of evenly spaced elements of each trainable tensor, on the CPU.

    Without embeddings, and without the half of their adapters with a column per token:
    elements of tokens that no row contains do not change.
    """
    import torch

    embeddings = {
        id(p)
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        for p in module.parameters()
    }
    return {
        name: p.detach().flatten()[:: max(1, p.numel() // _SAMPLED)].cpu().clone()
        for name, p in trainable(model).items()
        if id(p) not in embeddings and "lora_embedding_A" not in name
    }


def moved(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]
) -> float:
    """Share of the sampled elements that differ."""
    changed = sum(int((after[name] != old).sum()) for name, old in before.items())
    return changed / max(1, sum(old.numel() for old in before.values()))


def require_moved(
    before: Mapping[str, torch.Tensor], model: torch.nn.Module, steps: int
) -> float:
    """Share of the sampled elements that training has changed.

    Args:
        before: From `sample_weights`, before the first step.
        model: The model after the last step.
        steps: Steps with a learning rate above zero; with few, any change is enough.

    Raises:
        StageError: Nothing changed, or so little that steps must have rounded away.
    """
    share = moved(before, sample_weights(model))
    if not share:
        raise StageError(
            "Training did not change any weight.",
            hint="The learning rate may be too small, or the training too short for its warm-up.",
        )
    if steps >= _JUDGED and share < LEAST_MOVED:
        kinds = {p.dtype for p in trainable(model).values()}
        named = " and ".join(sorted(str(k).removeprefix("torch.") for k in kinds))
        raise StageError(
            f"Only {share:.1%} of the trained elements changed in {steps} steps: in {named} the other steps rounded away.",
            hint="Keep trained weights in float32, or raise learning_rate.",
        )
    return share


def require_saved(
    before: Mapping[str, torch.Tensor], model: torch.nn.Module, dtype: torch.dtype
) -> float:
    """Share of the sampled elements that still differ in the precision of the saved model.

    Raises:
        StageError: The share is so small that the saved model would equal its start.
    """
    after = sample_weights(model)
    share = moved(
        {name: old.to(dtype) for name, old in before.items()},
        {name: new.to(dtype) for name, new in after.items()},
    )
    if share < LEAST_SAVED:
        raise StageError(
            f"Only {share:.1%} of the trained elements differ from their start in {str(dtype).removeprefix('torch.')}, the precision of the base model and of the saved model.",
            hint="Train adapters, which are saved in float32, train longer, or raise learning_rate.",
        )
    return share


def require_trained(model: torch.nn.Module) -> None:
    """Checks that the adapters to start from have been trained.

    An untrained adapter has no effect, so the reference would be the base model.

    Raises:
        StageError: The second matrix of every adapter is zero.
    """
    seconds = [p for name, p in model.named_parameters() if "lora_B" in name]
    if seconds and not any(bool(p.any()) for p in seconds):
        raise StageError(
            "The adapters to start from are untrained, so the reference would be the base model.",
            hint="Train them first: run the recipe with --redo sft.",
        )


def require_window(config: PretrainedConfig, longest: int) -> None:
    """Checks that the longest row fits in the model's context window.

    Args:
        config: The model's; rotary positions may extend `max_position_embeddings`.
        longest: Tokens of the longest row.

    Raises:
        RecipeError: The row is longer; the model was never trained on such positions.
    """
    config = config.get_text_config()
    window = getattr(config, "max_position_embeddings", None) or longest
    rope = getattr(config, "rope_parameters", None) or {}
    scaled = rope.get("original_max_position_embeddings", 0) * rope.get("factor", 1)
    if longest > max(window, scaled):
        raise RecipeError(
            f"The longest row has {longest} tokens, and the model's context window is {window}.",
            hint=f"Set [prompt] max_tokens = {window}, which drops longer rows and counts them.",
        )


def require_finite(step: int, name: str, value: float) -> None:
    """Stops a training that has diverged.

    Args:
        step: Number of the optimizer step.
        name: Name of the metric.
        value: Value of the metric.

    Raises:
        StageError: The value is infinite or not a number.
    """
    if not math.isfinite(value):
        raise StageError(
            f"The {name} is {value} at step {step}: the training has diverged.",
            hint="Lower learning_rate or max_grad_norm.",
        )


def require_margins(metrics: Sequence[Mapping[str, Any]]) -> None:
    """Checks that the policy differs from its reference.

    Margins are zero at the first step, and as long as the warm-up has a rate of zero;
    trainings of less than four steps are not checked. KTO may have no margins, so the
    rewards of good or bad answers are checked instead.

    Raises:
        StageError: Every margin is exactly zero or not a number.
    """
    for key in _REWARDS:
        if values := [row[key] for row in metrics if key in row]:
            break
    else:
        return
    off_zero = any(math.isfinite(value) and value for value in values)
    if len(values) >= _JUDGED and not off_zero:
        raise StageError(
            "The DPO margins stayed at exactly zero: policy and reference have the same weights.",
            hint="Check that chosen and rejected differ and that the learning rate is not too small.",
        )


def audit_collator(
    collate: Callable[[list[Any]], Mapping[str, Any]],
    examples: Sequence[Any],
    rows: Sequence[Encoded],
    micro_batch: int,
    *,
    prompt_loss: bool = False,
) -> dict[str, int]:
    """Compares the tokens that a collator marks as trained with the rows it was given.

    Rows are counted before they are collated, so the counts would not show a collator
    that truncates an answer, drops its end token, or trains on a prompt. The longest
    rows are collated, because they would be the first to be truncated.

    Args:
        collate: The trainer's collator.
        examples: The trainer's rows.
        rows: The rows that they were made from, in the same order.
        micro_batch: Rows to collate at once.
        prompt_loss: Whether prompts are trained as well.

    Returns:
        For the audit: `cut`, the number of answer tokens that are not trained, and
        `collated`, the number of rows that were checked.

    Raises:
        StageError: The trained tokens differ from those of the rows.
    """
    longest = sorted(range(len(rows)), key=lambda n: rows[n].length)[-micro_batch:]
    answers = zip(*(rows[n].answers for n in longest), strict=True)
    wanted = [
        token
        for side in answers
        for n, answer in zip(longest, side, strict=True)
        for token in (rows[n].prompt[1:] + answer if prompt_loss else answer)
    ]
    trained = _trained(collate([examples[n] for n in longest]))
    if trained != wanted:
        raise StageError(
            f"The collator's trained tokens ({len(trained)}) differ from those of the rows ({len(wanted)}): an answer is truncated, its end token is not trained, or a prompt is.",
            hint="The installed versions of trl and transformers do not work together; pyproject.toml lists the tested ones.",
        )
    return {"cut": 0, "collated": len(longest)}


def _trained(batch: Mapping[str, Any]) -> list[int]:
    """The tokens with a label, sequence by sequence; empty if labels are other tokens."""
    ids = batch["input_ids"]
    if "labels" not in batch:
        return list(map(int, ids[batch["completion_mask"] > 0]))
    labels = batch["labels"]
    mask = labels != IGNORED
    return list(map(int, ids[mask])) if labels[mask].equal(ids[mask]) else []
