"""A loss on prompts as well, in which a prompt token counts less than an answer token.

The loss is a weighted mean over the tokens of a step: an answer token has weight 1, a
prompt token `weight`. A model with random weights learns from prompts how to copy, long
before it learns what to copy. With the same weight as answers, the prompts, which are much
longer, would dominate.

    log probabilities   (batch, tokens - 1), of each next token
    answer mask         (batch, tokens), 1 in the answer; shifted by one it matches them
    loss                sum(weights * -log p) / sum(weights)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swebench_trainer.training.batching.shared_prefix import pad_rows
from swebench_trainer.training.tokens.rows import ANSWER, IGNORED


def weighted(trainer_class: type[Any], weight: float) -> type[Any]:
    """An SFT trainer whose loss is a weighted mean over the tokens.

    Args:
        trainer_class: `SFTTrainer` or a subclass of it, with the plain loss.
        weight: Weight of a prompt token. With 0 and 1 the trainer's own mean is already
            the weighted mean.
    """
    if weight in (0, 1):
        return trainer_class

    class WeightedTrainer(trainer_class):  # type: ignore[misc]  # chosen by the caller
        data_collator: Any
        _signature_columns: list[str]

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.data_collator = _with_answers(self.data_collator)

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            if ANSWER not in self._signature_columns:
                self._signature_columns.append(ANSWER)

        def _get_num_items_in_batch(self, batches: list[Any], device: Any) -> Any:
            count = super()._get_num_items_in_batch
            tokens = count(batches, device)
            if tokens is None:
                return None
            answers = count([_without_prompts(batch) for batch in batches], device)
            # The sum of the weights: answers + weight * (tokens - answers).
            return weight * tokens + (1 - weight) * answers

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any
        ) -> Any:
            answer = inputs.pop(ANSWER, None)
            if answer is None:  # held-out loss: only on answers
                return super().compute_loss(model, inputs, *args, **options)

            def weighted_model(**given: Any) -> Any:
                outputs = model(**given)
                if outputs.log_probs is not None:
                    # log_probs[:, i] is of token i + 1.
                    weights = weight + (1 - weight) * answer[:, 1:]
                    outputs.log_probs = outputs.log_probs * weights
                return outputs

            return super().compute_loss(weighted_model, inputs, *args, **options)

    return WeightedTrainer


def _with_answers(
    collate: Callable[[list[Any]], dict[str, Any]],
) -> Callable[[list[Any]], dict[str, Any]]:
    """A collator that adds the answer mask of rows that are padded at the end."""

    def collated(rows: list[Any]) -> dict[str, Any]:
        batch = collate(rows)
        if ANSWER in rows[0]:
            # (batch, tokens), like the labels: 1 in the answers, 0 in prompts and padding.
            batch[ANSWER] = pad_rows([row[ANSWER] for row in rows], 0)
        return batch

    return collated


def _without_prompts(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {**batch, "labels": batch["labels"].masked_fill(batch[ANSWER] == 0, IGNORED)}
