"""Checks that a training has taught the model something.

Each guard is a way in which a run can end well and have changed nothing: no
weight to train, steps that round away, a policy that is its own reference.
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
    """A copy of every so-manieth element of each trainable tensor, on the CPU."""
    return {
        name: p.detach().flatten()[:: _stride(p.numel())].cpu().clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def require_moved(before: Mapping[str, torch.Tensor], model: torch.nn.Module) -> float:
    """Share of the sampled elements that differ from what they were.

    Raises:
        StageError: None does.
    """
    after = sample_weights(model)
    moved = sum(int((after[name] != old).sum()) for name, old in before.items())
    if not moved:
        raise StageError(
            "Training has not changed a single weight.",
            hint="The learning rate may be too small, or zero during the warm-up of a very short training.",
        )
    return moved / sum(old.numel() for old in before.values())


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
    rate of zero; trainings of less than four steps are not judged.

    Raises:
        StageError: Every margin is exactly zero.
    """
    margins = [row["rewards/margins"] for row in metrics if "rewards/margins" in row]
    if len(margins) >= 4 and not any(margins):
        raise StageError(
            "The DPO margins stayed at exactly zero: the policy and its reference are the same weights.",
            hint="Check that chosen and rejected differ and that the learning rate is not too small.",
        )


def _stride(count: int) -> int:
    return max(1, count // _SAMPLED)
