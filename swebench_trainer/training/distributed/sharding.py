"""How the weights lie in several processes: in each of them, or a part in each."""

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
        # Every adapter takes part in every loss; looking for others costs time.
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
    """Checks that a checkpoint was written as this training would write it.

    Raises:
        StageError: Its weights are sharded and the training's are not, or the reverse.
    """
    if checkpoint is None:
        return
    sharded = checkpoint.joinpath("optimizer.bin").is_file()  # else optimizer.pt
    if sharded != bool(trainer.is_fsdp_enabled):
        raise StageError(
            f"{checkpoint.name} was written with sharding = "
            f'"{"fsdp" if sharded else "none"}", and cannot be gone on with otherwise.',
            hint="Take the change of sharding back, or do the stage anew with --redo.",
        )


def whole_state(trainer: Trainer) -> Mapping[str, torch.Tensor] | None:
    """The weights that processes hold in parts, put together in the first one.

    Returns:
        `None` where each process has all of them. To be called by every process.
    """
    if not trainer.is_fsdp_enabled:
        return None
    state: Mapping[str, torch.Tensor] = trainer.accelerator.get_state_dict(
        trainer.model_wrapped
    )
    return state
