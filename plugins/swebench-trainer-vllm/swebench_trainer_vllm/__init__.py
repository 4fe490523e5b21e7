"""Backend `vllm`: trains as `hf` does and samples with vLLM in the same process."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, JsonValue, PositiveInt

from swebench_trainer import hookimpl
from swebench_trainer.hf import HfTable
from swebench_trainer.hookspecs import Register
from swebench_trainer.recipe.models import VOLATILE


class VllmTable(HfTable):
    """A causal language model, trained with TRL and sampled with vLLM."""

    use: str = "vllm"
    """Name of this backend."""
    gpu_memory: Annotated[
        float, Field(gt=0, le=1, json_schema_extra={VOLATILE: True})
    ] = 0.9
    """Share of GPU memory for vLLM."""
    gpus: Annotated[PositiveInt, Field(json_schema_extra={VOLATILE: True})] = 1
    """Number of GPUs to split the model over while sampling."""
    engine: Annotated[
        dict[str, JsonValue], Field(json_schema_extra={VOLATILE: True})
    ] = Field(default_factory=dict)
    """Extra arguments for `vllm.LLM`, such as `{ max_model_len = 16384 }`."""


@hookimpl
def register_backends(register: Register) -> None:
    """Register `vllm`."""

    def vllm(table: VllmTable) -> Any:
        from swebench_trainer_vllm.backend import VllmBackend

        return VllmBackend(table)

    register(
        "vllm",
        vllm,
        config=VllmTable,
        summary="hf models sampled with vLLM in the same process",
    )
