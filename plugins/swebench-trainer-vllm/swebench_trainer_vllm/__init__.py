"""Backend `vllm`: trains as `hf` does, and samples with vLLM in this process."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, JsonValue, PositiveInt

from swebench_trainer import hookimpl
from swebench_trainer.hookspecs import Register
from swebench_trainer.recipe.models import VOLATILE
from swebench_trainer.training.models.table import HfTable


class VllmTable(HfTable):
    """A causal language model, trained with TRL and sampled with vLLM."""

    use: str = "vllm"
    """`vllm`."""
    gpu_memory: Annotated[
        float, Field(gt=0, le=1, json_schema_extra={VOLATILE: True})
    ] = 0.9
    """Share of the GPU's memory that vLLM may take."""
    gpus: Annotated[PositiveInt, Field(json_schema_extra={VOLATILE: True})] = 1
    """GPUs that hold the model together while it samples."""
    engine: Annotated[
        dict[str, JsonValue], Field(json_schema_extra={VOLATILE: True})
    ] = Field(default_factory=dict)
    """Further arguments of `vllm.LLM`, such as `{ max_model_len = 16384 }`."""


@hookimpl
def register_backends(register: Register) -> None:
    """VLLM."""

    def vllm(table: VllmTable) -> Any:
        from swebench_trainer_vllm.backend import VllmBackend

        return VllmBackend(table)

    register(
        "vllm",
        vllm,
        config=VllmTable,
        summary="models of hf, sampled by vLLM in this process",
    )
