"""Weights across processes: a full copy in each, or a shard in each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import TrainTable

if TYPE_CHECKING:
    import torch
    from transformers import Trainer


def arguments(settings: TrainTable) -> dict[str, Any]:
    """Arguments of the trainer for `processes` and `sharding`."""
    import torch

    if settings.processes == 1:
        return {}
    cuda = torch.cuda.is_available()
    chosen: dict[str, Any] = {
        "ddp_backend": "nccl" if cuda else "gloo",
        # Every adapter contributes to every loss; searching for unused ones costs time.
        "ddp_find_unused_parameters": False,
    }
    if settings.sharding == "fsdp":
        chosen["fsdp"] = True
        chosen["fsdp_config"] = {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "FULL_STATE_DICT",
        }
    return chosen


def require_same(trainer: Trainer, checkpoint: Path | None) -> None:
    """Checks that a checkpoint was written with the same sharding as this training.

    Raises:
        StageError: Only one of the two is sharded.
    """
    if checkpoint is None:
        return
    sharded = checkpoint.joinpath("optimizer.bin").is_file()  # else optimizer.pt
    if sharded != bool(trainer.is_fsdp_enabled):
        written = "fsdp" if sharded else "none"
        raise StageError(
            f'{checkpoint.name} was written with sharding = "{written}", and cannot be resumed with another value.',
            hint="Undo the change of sharding, or rerun the stage with --redo.",
        )


def whole_state(trainer: Trainer) -> Mapping[str, torch.Tensor] | None:
    """Gathers sharded weights in the first process; every process must call this.

    Returns:
        `None` if each process has all weights.
    """
    if not trainer.is_fsdp_enabled:
        return None
    state: Mapping[str, torch.Tensor] = trainer.accelerator.get_state_dict(
        trainer.model_wrapped
    )
    return state
