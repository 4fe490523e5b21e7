"""The `[model]` table of the `hf` backend."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from swebench_trainer.recipe.models import (
    VOLATILE,
    ModelTable,
    Table,
    from_recipe_folder,
)

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of a Llama or Qwen block."""


class Lora(Table):
    """Size and position of the low-rank adapters."""

    rank: PositiveInt = 32
    """Rank of each layer's update."""
    alpha: PositiveInt = 64
    """Scale of the update, relative to its rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter, only in SFT."""
    targets: tuple[str, ...] = TARGETS
    """Names of the layers that get an adapter."""

    @field_validator("targets")
    @classmethod
    def _head_stays(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if any(name.rpartition(".")[2] == "lm_head" for name in targets):
            raise ValueError("lm_head cannot have an adapter: TRL's loss bypasses it")
        return targets


def _directory_or_hub_id(name: str, info: ValidationInfo) -> str:
    """The absolute path if the name is an existing directory, else the name."""
    path = from_recipe_folder(name, info).resolve()
    return str(path) if path.is_dir() else name


class HfTable(ModelTable):
    """A causal language model from the Hub or from a directory."""

    name: Annotated[str, AfterValidator(_directory_or_hub_id), Field(min_length=1)]
    """Hub id or directory, or a built-in model of random weights that needs no network: `builtin:tiny` for the quickstart, `builtin:small` for `generated` tasks."""
    revision: str | None = None
    """Branch, tag or commit on the Hub. A commit makes the recipe reproducible."""
    quantization: Literal["none", "nf4"] = "nf4"
    """Precision of the frozen weights: `nf4` is 4 bits (QLoRA), `none` is bf16 (fp32 on a CPU)."""
    lora: Lora | Literal[False] = Lora()
    """Adapters to train, such as `{ rank = 32, alpha = 64 }`. `false` trains every weight."""
    attention: Annotated[str, Field(json_schema_extra={VOLATILE: True})] = "auto"
    """Attention implementation of transformers, such as `sdpa` or `flash_attention_2`. `auto` trains with the Hub's flash attention kernel if the package `kernels` and an Ampere or later GPU are available, except for DPO with shared prompts, which needs masks; otherwise with `sdpa`."""
    checkpointing: Annotated[
        Literal["auto", "none", "every_4", "every_2", "full", "offload"],
        Field(json_schema_extra={VOLATILE: True}),
    ] = "auto"
    """Layers whose activations are recomputed in the backward pass instead of kept: none (fastest), every fourth, every second, or all (`full`); `offload` also moves the kept ones off the GPU (least memory). `auto` takes the first that fits, and records its measurements in `checkpointing.json`: on one GPU by two trial steps on the longest rows, on a CPU `none` or `full` by an estimate, with several processes `full`."""

    @model_validator(mode="after")
    def _quantized_weights_are_frozen(self) -> Self:
        if self.quantization == "nf4" and self.lora is False:
            raise ValueError(
                '4-bit weights cannot be trained: keep lora, or set quantization = "none"'
            )
        return self
