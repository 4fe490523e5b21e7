"""What a preference training starts from, and what it is held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swebench_trainer.contracts import TrainRequest
from swebench_trainer.recipe.models import DpoTable
from swebench_trainer.training.loop import guards
from swebench_trainer.training.models.loading import load_reference, load_trainable
from swebench_trainer.training.models.table import HfTable

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_policy(
    table: HfTable, request: TrainRequest, settings: DpoTable
) -> tuple[PreTrainedModel | PeftModel, PreTrainedModel | None]:
    """Loads the policy and its reference.

    Returns:
        The reference is `None` with adapters: TRL then keeps a frozen copy of them,
        called "ref", on the same base.

    Raises:
        StageError: The adapters to start from are as they were made.
    """
    from peft import PeftModel

    model = load_trainable(
        table, request.start, request.seed, sharded=settings.sharding == "fsdp"
    )
    if request.start:
        guards.require_trained(model)
    if isinstance(model, PeftModel):
        return model, None
    return model, load_reference(table, request.start)
