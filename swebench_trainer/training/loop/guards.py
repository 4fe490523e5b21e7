"""Checks that a training has taught the model something.

Each guard is a way in which a run can end well and have changed nothing: no
weight to train, steps that round away, a policy that is its own reference, a
reference that is the base model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from swebench_trainer.errors import RecipeError, StageError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

_SAMPLED = 1 << 16
"""Elements of one tensor that are compared, so that memory stays small."""

LEAST_MOVED = 0.5
"""Share of the elements that must move: in fp32 nearly all of them do, in bf16 few do
where steps are small, because most steps round away."""

LEAST_SAVED = 0.01
"""Share of the elements that must still differ in the precision that is saved."""

_JUDGED = 4
"""Steps from which a training is judged: in the first ones the learning rate rises
from zero, and one half of a fresh adapter has no gradient yet."""

_REWARDS = ("rewards/margins", "rewards/chosen", "rewards/rejected")


def require_trainable(model: torch.nn.Module) -> int:
    """Number of trainable elements.

    Raises:
        StageError: There are none.
    """
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not count:
        raise StageError(
            "No weight of the model can be trained.",
            hint="Check [model] lora: its targets must name layers of this model.",
        )
    return count


def sample_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every so-manieth element of each trainable tensor, on the CPU.

    Embeddings are left out, and the half of their adapters that has a column for each
    token: those of tokens that no row has do not move.
    """
    import torch

    embeddings = {
        id(p)
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        for p in module.parameters()
    }
    return {
        name: p.detach().flatten()[:: _stride(p.numel())].cpu().clone()
        for name, p in model.named_parameters()
        if p.requires_grad
        and id(p) not in embeddings
        and "lora_embedding_A" not in name
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
    """Share of the sampled elements that differ from what they were.

    Args:
        before: From `sample_weights`, before the first step.
        model: As it is after the last one.
        steps: Steps at a learning rate above zero; few are not judged by the share.

    Raises:
        StageError: None does, or so few that the steps must have rounded away.
    """
    share = moved(before, sample_weights(model))
    if not share:
        raise StageError(
            "Training has not changed a single weight.",
            hint="The learning rate may be too small, or zero during the warm-up of a very short training.",
        )
    if steps >= _JUDGED and share < LEAST_MOVED:
        kinds = {p.dtype for p in model.parameters() if p.requires_grad}
        named = " and ".join(sorted(str(k).removeprefix("torch.") for k in kinds))
        raise StageError(
            f"Only {share:.1%} of the trained elements have changed in {steps} steps: in {named} the others' steps were rounded away.",
            hint="Keep trained weights in float32, or raise learning_rate.",
        )
    return share


def require_saved(
    before: Mapping[str, torch.Tensor], model: torch.nn.Module, dtype: torch.dtype
) -> float:
    """Share of the sampled elements that still differ in the precision that is saved.

    Raises:
        StageError: Hardly any does, so what is saved would be what was started from.
    """
    after = sample_weights(model)
    share = moved(
        {name: old.to(dtype) for name, old in before.items()},
        {name: new.to(dtype) for name, new in after.items()},
    )
    if share < LEAST_SAVED:
        raise StageError(
            f"Only {share:.1%} of the trained elements differ from their start in {str(dtype).removeprefix('torch.')}, in which the base model is kept and the result is saved.",
            hint="Train adapters, which are saved in float32, take more steps, or raise learning_rate.",
        )
    return share


def require_trained(model: torch.nn.Module) -> None:
    """Checks that adapters which a training starts from are not fresh ones.

    A fresh adapter changes nothing, so a reference of it would be the base model.

    Raises:
        StageError: The second matrix of every adapter is zero.
    """
    seconds = [p for name, p in model.named_parameters() if "lora_B" in name]
    if seconds and not any(bool(p.any()) for p in seconds):
        raise StageError(
            "The adapters to start from are as they were made, so the reference would be the base model.",
            hint="Train them first: --redo sft",
        )


def require_window(config: PretrainedConfig, longest: int) -> None:
    """Checks that the model has a position for every token of a row.

    Args:
        config: The model's, whose rotary positions may reach further than its own.
        longest: Tokens of the longest row.

    Raises:
        RecipeError: It has not; it was never trained on such positions.
    """
    config = config.get_text_config()
    window = getattr(config, "max_position_embeddings", None) or longest
    rope = getattr(config, "rope_parameters", None) or {}
    scaled = rope.get("original_max_position_embeddings", 0) * rope.get("factor", 1)
    if longest > max(window, scaled):
        raise RecipeError(
            f"The longest row has {longest} tokens, and the model has positions for {window}.",
            hint=f"Set [prompt] max_tokens = {window}; longer rows are then dropped and counted.",
        )


def require_finite(step: int, loss: float) -> None:
    """Stops a training that has diverged.

    Raises:
        StageError: The loss is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise StageError(
            f"The loss is {loss} at step {step}: the training has diverged.",
            hint="Lower learning_rate or max_grad_norm.",
        )


def require_finite_gradient(step: int, norm: float) -> None:
    """Stops a training whose weights are no numbers any more, whatever the loss was.

    Args:
        step: Number of the optimizer step.
        norm: Norm of its gradient, before clipping.

    Raises:
        StageError: It is infinite or not a number.
    """
    if not math.isfinite(norm):
        raise StageError(
            f"The gradient has the norm {norm} at step {step}: the training has diverged.",
            hint="Lower learning_rate or max_grad_norm.",
        )


def require_margins(metrics: Sequence[Mapping[str, Any]]) -> None:
    """Checks that the policy has left its reference.

    Margins are zero at the first step, and stay so while the warm-up begins at a
    rate of zero; trainings of less than four steps are not judged. Where answers
    stand alone there may be no margin, and the rewards of either kind are looked at.

    Raises:
        StageError: Every margin is exactly zero, or no number.
    """
    for key in _REWARDS:
        if values := [row[key] for row in metrics if key in row]:
            break
    else:
        return
    off_zero = any(math.isfinite(value) and value for value in values)
    if len(values) >= _JUDGED and not off_zero:
        raise StageError(
            "The DPO margins stayed at exactly zero: the policy and its reference are the same weights.",
            hint="Check that chosen and rejected differ and that the learning rate is not too small.",
        )


def _stride(count: int) -> int:
    return max(1, count // _SAMPLED)
