"""Trains as `hf` does and samples from base or trained weights with vLLM."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import Sampler
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.hf import HfBackend, Location, locate, open_codec
from swebench_trainer_vllm import VllmTable
from swebench_trainer_vllm.sampler import VllmSampler


class VllmBackend(HfBackend):
    """A `Backend` that inherits its training from `HfBackend`.

    Args:
        table: The recipe's `[model]`.
    """

    table: VllmTable

    def __init__(self, table: VllmTable) -> None:
        super().__init__(table)

    def check(self) -> None:
        """See `Backend.check`."""
        if not find_spec("vllm"):
            raise PrerequisiteError(
                "The vllm backend needs the package vllm.",
                hint="Run pip install 'swebench-trainer-vllm[engine]', or sample from a "
                'server: use = "openai" with its base_url.',
            )
        super().check()

    def open_sampler(self, weights: Path | None, *, batch_size: int) -> Sampler:
        """See `Backend.open_sampler`. vLLM chooses the batch size."""
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest

        codec = open_codec(self.table, weights)
        location = locate(self.table, weights)
        lora = location.adapter and LoRARequest("trained", 1, str(location.adapter))
        return VllmSampler(
            LLM(**engine_arguments(self.table, location)),
            partial(SamplingParams, detokenize=False),
            codec,
            lora=lora,
        )


def engine_arguments(table: VllmTable, location: Location) -> dict[str, Any]:
    """Arguments of `vllm.LLM` for a base model, its adapter, or a trained model."""
    arguments: dict[str, Any] = {}
    if location.adapter:
        arguments = {"enable_lora": True, "max_lora_rank": location.rank}
    if table.quantization == "nf4":
        arguments["quantization"] = "bitsandbytes"
    return {
        "model": location.model,
        "revision": location.revision,
        "skip_tokenizer_init": True,
        # The recipe decides, not the sampling defaults of the checkpoint.
        "generation_config": "vllm",
        "enable_prefix_caching": True,
        "gpu_memory_utilization": table.gpu_memory,
        "tensor_parallel_size": table.gpus,
        **arguments,
        **table.engine,
    }
