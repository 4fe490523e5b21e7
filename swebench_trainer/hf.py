"""The `hf` backend, and what other backends of Hugging Face models can build on.

This module is public: a plugin that trains as `hf` does and samples in another way
extends `HfTable` and `HfBackend`, and overrides `open_sampler`. It then gets the token
ids of training from `open_codec` and the location of the weights from `locate`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import Sampler, TokenView, TrainRequest
from swebench_trainer.recipe.models import DpoTable, SftTable, TrainTable
from swebench_trainer.sampling.transformers import TransformersSampler
from swebench_trainer.training.distributed import launch
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.models.loading import (
    check_model,
    is_adapter,
    load_model,
    load_tokenizer,
    source_of,
)
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import silence_libraries
from swebench_trainer.training.tokens.encoding import (
    decode_answer,
    describe_row,
    encode_prompt,
    end_of_answer,
    opened_thought,
)
from swebench_trainer.types import Pair, SftRow

__all__ = ["Codec", "HfBackend", "HfTable", "Location", "locate", "open_codec"]


class HfBackend:
    """Trains a causal language model with TRL and samples with transformers.

    Args:
        table: The recipe's `[model]`.
    """

    def __init__(self, table: HfTable) -> None:
        self.table = table
        self.name = table.name
        self.tokenizer = f"{table.name}@{table.revision or 'latest'}"

    def check(self) -> None:
        """See `Backend.check`. Loads neither weights nor torch."""
        check_model(self.table)

    def check_training(self, settings: TrainTable) -> None:
        """See `TrainingChecker.check_training`."""
        launch.check(self.table, settings)

    def train_sft(
        self, rows: Sequence[SftRow], settings: SftTable, request: TrainRequest
    ) -> Path:
        """See `Backend.train_sft`."""
        return launch.train(train_sft, self.table, rows, settings, request)

    def train_dpo(
        self, pairs: Sequence[Pair], settings: DpoTable, request: TrainRequest
    ) -> Path:
        """See `Backend.train_dpo`."""
        return launch.train(train_dpo, self.table, pairs, settings, request)

    def open_sampler(self, weights: Path | None, *, batch_size: int) -> Sampler:
        """See `Backend.open_sampler`."""
        with silence_libraries():
            codec = open_codec(self.table, weights)
            model = load_model(self.table, weights)
        return TransformersSampler(
            model,
            encode=codec.encode,
            decode=codec.decode,
            opened=codec.opened,
            stop=codec.stop | _stop_ids_of(model),
            pad=codec.pad,
            batch_size=batch_size,
        )

    def open_view(self) -> Callable[[str, str | None], TokenView]:
        """See `TokenViewer.open_view`."""
        with silence_libraries():
            return partial(describe_row, load_tokenizer(self.table))

    def open_counter(self) -> Callable[[str], int]:
        """See `TokenCounter.open_counter`."""
        with silence_libraries():
            tokenizer = load_tokenizer(self.table)
        return lambda text: len(encode_prompt(tokenizer, text))


@dataclass(frozen=True)
class Codec:
    """Text to token ids and back, exactly as in training.

    Attributes:
        encode: Prompt to token ids, ready for the answer to follow.
        decode: Token ids of an answer to its text; of the special tokens, only markup
            around thoughts is kept.
        stop: Ids that end an answer.
        pad: Id that fills up a batch.
        opened: Token ids of a prompt to the opening of a thought that it ends with,
            else to an empty text. It belongs before an answer that is cut off.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    stop: frozenset[int]
    pad: int
    opened: Callable[[Sequence[int]], str] = lambda _: ""


def open_codec(table: HfTable, weights: Path | None = None) -> Codec:
    """Loads the tokenizer of the base model or of trained weights.

    Args:
        table: The recipe's `[model]`.
        weights: The directory that a training returned; `None` means the base model.

    Raises:
        RecipeError: The tokenizer cannot be used, for example because it has no EOS
            token.
        PrerequisiteError: The tokenizer is not on this machine, and the Hub cannot be
            reached.
    """
    tokenizer = load_tokenizer(table, weights)
    return Codec(
        encode=partial(encode_prompt, tokenizer),
        decode=partial(decode_answer, tokenizer),
        stop=frozenset({end_of_answer(tokenizer), tokenizer.eos_token_id}),
        pad=tokenizer.pad_token_id,
        opened=partial(opened_thought, tokenizer),
    )


@dataclass(frozen=True)
class Location:
    """Where a model's weights are.

    Attributes:
        model: Directory or Hub id of a whole model.
        revision: Branch, tag or commit on the Hub, if the recipe names one.
        adapter: PEFT adapter to apply to the model, if the training made one.
        rank: Rank of the adapter; 0 without one.
    """

    model: str
    revision: str | None = None
    adapter: Path | None = None
    rank: int = 0


def locate(table: HfTable, weights: Path | None = None) -> Location:
    """Finds the base model, or trained weights, for an engine to load.

    A built-in model is created in the user's cache on first use.

    Args:
        table: The recipe's `[model]`.
        weights: The directory that a training returned; `None` means the base model.
    """
    model, revision = source_of(table, weights)
    if not is_adapter(weights):
        return Location(model, revision)
    config = json.loads((weights / "adapter_config.json").read_text(encoding="utf-8"))
    return Location(model, revision, weights, config["r"])


def _stop_ids_of(model: Any) -> frozenset[int]:
    """The ids that end an answer according to the model's own generation config."""
    ids = model.generation_config.eos_token_id
    return frozenset(ids if isinstance(ids, list) else [ids]) - {None}
