"""Coordination between the processes of one training; usually there is only one.

With several processes, each has a full copy of the weights, or a shard of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from swebench_trainer.errors import StageError
from swebench_trainer.recipe.models import TrainTable

if TYPE_CHECKING:
    import torch
    from transformers import Trainer

T = TypeVar("T")


def size() -> int:
    """Number of processes that train together."""
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the first process, which writes all files."""
    from torch import distributed

    return size() == 1 or distributed.get_rank() == 0


def barrier() -> None:
    """Waits until every process has reached this point."""
    from torch import distributed

    if size() > 1:
        distributed.barrier()


def leave() -> None:
    """Ends the process group; otherwise its threads would outlive Python."""
    from torch import distributed

    barrier()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def run_on_first(function: Callable[[], T]) -> T:
    """Calls a function in the first process, and returns its result in all of them."""
    from torch import distributed

    if size() == 1:
        return function()
    result = [function() if is_first() else None]
    distributed.broadcast_object_list(result)
    return result[0]  # type: ignore[return-value]  # the first process has set it


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


def require_same_sharding(trainer: Trainer, checkpoint: Path | None) -> None:
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
