"""Trains through `hf`; opens base model or trained weights in vLLM."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import Sampler, TokenView, TrainRequest
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.recipe.models import DpoTable, SftTable, TrainTable
from swebench_trainer.sampling.transformers import TransformersSampler
from swebench_trainer.training.backend import HfBackend
from swebench_trainer.training.models.loading import load_tokenizer
from swebench_trainer.training.models.tiny import MODELS, tiny_directory
from swebench_trainer.training.tokens.encoding import (
    decode_completion,
    encode_prompt,
    end_of_answer,
)
from swebench_trainer.types import Pair, SftRow
from swebench_trainer_vllm import VllmTable
from swebench_trainer_vllm.sampler import VllmSampler

_ADAPTER = "adapter_config.json"


class VllmBackend:
    """A `Backend`: what it does not do itself, `HfBackend` does.

    Args:
        table: The recipe's table.
    """

    def __init__(self, table: VllmTable) -> None:
        self._table = table
        self._hf = HfBackend(table, make_sampler=TransformersSampler)
        self.name = self._hf.name
        self.tokenizer = self._hf.tokenizer

    def check(self) -> None:
        """See `Backend.check`."""
        if not find_spec("vllm"):
            raise PrerequisiteError(
                "The vllm backend needs the package vllm.",
                hint="pip install 'swebench-trainer-vllm[engine]', or ask a server: "
                'use = "openai" with its base_url.',
            )
        self._hf.check()

    def check_training(self, settings: TrainTable) -> None:
        """See `TrainingChecker.check_training`."""
        self._hf.check_training(settings)

    def train_sft(
        self, rows: Sequence[SftRow], settings: SftTable, request: TrainRequest
    ) -> Path:
        """See `Backend.train_sft`."""
        return self._hf.train_sft(rows, settings, request)

    def train_dpo(
        self, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
    ) -> Path:
        """See `Backend.train_dpo`."""
        return self._hf.train_dpo(pairs, settings, request)

    def open_view(self) -> Callable[[str, str | None], TokenView]:
        """See `TokenViewer.open_view`."""
        return self._hf.open_view()

    def open_counter(self) -> Callable[[str], int]:
        """See `TokenCounter.open_counter`."""
        return self._hf.open_counter()

    def open_sampler(self, weights: Path | None, *, batch_size: int) -> Sampler:
        """See `Backend.open_sampler`. vLLM batches by itself."""
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest

        tokenizer = load_tokenizer(self._table, weights)
        is_adapter = weights is not None and (weights / _ADAPTER).exists()
        lora = LoRARequest("trained", 1, str(weights)) if is_adapter else None
        return VllmSampler(
            LLM(**engine_arguments(self._table, weights)),
            partial(SamplingParams, detokenize=False),
            encode=partial(encode_prompt, tokenizer),
            decode=partial(decode_completion, tokenizer),
            stop=sorted({end_of_answer(tokenizer), tokenizer.eos_token_id}),
            lora=lora,
        )


def engine_arguments(table: VllmTable, weights: Path | None) -> dict[str, Any]:
    """Arguments of `vllm.LLM` for a base model, its adapter, or trained weights."""
    model, revision = table.name, table.revision
    if table.name in MODELS:
        model = str(tiny_directory(table.name))
    arguments: dict[str, Any] = {}
    if weights is not None and (weights / _ADAPTER).exists():
        config = json.loads((weights / _ADAPTER).read_text())
        arguments = {"enable_lora": True, "max_lora_rank": config["r"]}
    elif weights is not None:
        model, revision = str(weights), None
    if table.quantization == "nf4":
        arguments["quantization"] = "bitsandbytes"
    return {
        "model": model,
        "revision": revision,
        "skip_tokenizer_init": True,
        # A checkpoint's own sampling defaults are not what the recipe asks for.
        "generation_config": "vllm",
        "enable_prefix_caching": True,
        "gpu_memory_utilization": table.gpu_memory,
        "tensor_parallel_size": table.gpus,
        **arguments,
        **table.engine,
    }
