"""The `hf` backend: transformers models, trained with TRL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from swebench_trainer.contracts import Sampler, TokenView, TrainRequest
from swebench_trainer.recipe.models import DpoTable, SftTable, TrainTable
from swebench_trainer.training.distributed import launch
from swebench_trainer.training.dpo import train_dpo
from swebench_trainer.training.models.loading import (
    check_model,
    load_model,
    load_tokenizer,
)
from swebench_trainer.training.models.table import HfTable
from swebench_trainer.training.sft import train_sft
from swebench_trainer.training.silence import quiet_libraries
from swebench_trainer.training.tokens.encoding import (
    decode_completion,
    describe_row,
    encode_prompt,
    end_of_answer,
)
from swebench_trainer.types import Pair, SftRow


class MakeSampler(Protocol):
    """Wraps a loaded model as a `Sampler`."""

    def __call__(
        self,
        model: Any,
        *,
        encode: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
        stop: frozenset[int],
        pad: int,
        batch_size: int,
    ) -> Sampler:
        """Makes the sampler.

        Args:
            model: In eval mode, on its device.
            encode: Prompt to token ids.
            decode: Token ids of an answer to its text.
            stop: Ids that end an answer.
            pad: Id that fills up a batch.
            batch_size: Answers written at once.
        """


class HfBackend:
    """Trains a causal language model with TRL and opens it for sampling.

    Args:
        table: The recipe's `[model]`.
        make_sampler: What wraps a loaded model; samplers are a package of their own.
    """

    def __init__(self, table: HfTable, make_sampler: MakeSampler) -> None:
        self.table = table
        self.name = table.name
        self.tokenizer = f"{table.name}@{table.revision or 'latest'}"
        self._make_sampler = make_sampler

    def check(self) -> None:
        """See `Backend.check`. Loads no weights and no torch."""
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
        with quiet_libraries():
            tokenizer = load_tokenizer(self.table, weights)
            model = load_model(self.table, weights)
            return self._make_sampler(
                model,
                encode=partial(encode_prompt, tokenizer),
                decode=partial(decode_completion, tokenizer),
                stop=_stop_ids(model, end_of_answer(tokenizer), tokenizer.eos_token_id),
                pad=tokenizer.pad_token_id,
                batch_size=batch_size,
            )

    def open_view(self) -> Callable[[str, str | None], TokenView]:
        """See `TokenViewer.open_view`."""
        with quiet_libraries():
            return partial(describe_row, load_tokenizer(self.table))

    def open_counter(self) -> Callable[[str], int]:
        """See `TokenCounter.open_counter`."""
        with quiet_libraries():
            tokenizer = load_tokenizer(self.table)
        return lambda text: len(encode_prompt(tokenizer, text))


def _stop_ids(model: Any, *known: int) -> frozenset[int]:
    """The ids that end an answer, those of the model's own settings included."""
    own = model.generation_config.eos_token_id
    return frozenset([*known, *(own if isinstance(own, list) else [own])]) - {None}
