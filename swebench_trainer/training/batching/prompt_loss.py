"""Prompts that are learned too, each of their tokens for less than one of an answer.

A model that begins as random numbers learns from prompts how to copy, long before it
learns what to copy; at the weight of an answer their tokens, which are many more,
would drown it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swebench_trainer.training.tokens.rows import ANSWER, IGNORED


def weighing(trainer_class: type[Any], weight: float) -> type[Any]:
    """A trainer of TRL's SFT whose loss is a weighted mean over the tokens.

    Args:
        trainer_class: `SFTTrainer` or a child of it, with the plain loss.
        weight: Of a token of a prompt; one of an answer has 1. With 0 and 1 the
            trainer's own mean is that mean already.
    """
    if weight in (0, 1):
        return trainer_class

    class Weighing(trainer_class):  # type: ignore[misc]  # chosen by the caller
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
            return weight * tokens + (1 - weight) * answers

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any
        ) -> Any:
            answer = inputs.pop(ANSWER, None)
            if answer is None:  # rows that are held back are judged by their answers
                return super().compute_loss(model, inputs, *args, **options)

            def weighed(**given: Any) -> Any:
                outputs = model(**given)
                if outputs.log_probs is not None:  # each is of the token after its own
                    weights = weight + (1 - weight) * answer[:, 1:]
                    outputs.log_probs = outputs.log_probs * weights
                return outputs

            return super().compute_loss(weighed, inputs, *args, **options)

    return Weighing


def _with_answers(
    collate: Callable[[list[Any]], dict[str, Any]],
) -> Callable[[list[Any]], dict[str, Any]]:
    """A collator that tells answers from prompts, in rows padded at their ends."""

    def collated(rows: list[Any]) -> dict[str, Any]:
        batch = collate(rows)
        if ANSWER in rows[0]:
            batch[ANSWER] = _padded(rows, batch["labels"])
        return batch

    return collated


def _padded(rows: Sequence[Mapping[str, Any]], labels: Any) -> Any:
    import torch

    mask = torch.zeros_like(labels)
    for place, row in zip(mask, rows, strict=True):
        place[: len(row[ANSWER])] = torch.tensor(row[ANSWER])
    return mask


def _without_prompts(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {**batch, "labels": batch["labels"].masked_fill(batch[ANSWER] == 0, IGNORED)}
