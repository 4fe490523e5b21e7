"""Splits the rows of an optimizer step into parts that fit on the device.

The trainer takes all rows of a step as one batch, and its training step forwards them
part by part, weighting each part's loss by its rows. So an optimizer step is always
`batch_size` rows whose gradients count the same, however they are split:

    rows of a step    [r0, r1, …]           batch_size rows
    parts             [[r3, r0], [r1], …]   each at most `room` tokens, or rows
    loss              sum over parts of (rows in the part / rows in the step) * mean loss
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Collate = Callable[[list[Row]], dict[str, Any]]


def packed(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Splits sequences to concatenate: best fit, the longest sequence first.

    Args:
        lengths: Tokens of each sequence.
        room: Tokens of a part; a longer sequence is a part of its own.

    Returns:
        The numbers of the sequences in each part.
    """
    parts: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, part)
    for number in _longest_first(lengths):
        place = bisect_left(free, (lengths[number], -1))
        left, part = free.pop(place) if place < len(free) else (room, len(parts))
        if part == len(parts):
            parts.append([])
        parts[part].append(number)
        insort(free, (left - lengths[number], part))
    return parts


def padded(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Splits sequences to pad to the longest in their part.

    Args:
        lengths: Tokens of each sequence.
        room: Tokens of a part, including padding; a longer sequence is a part of its own.

    Returns:
        The numbers of the sequences in each part.
    """
    parts: list[list[int]] = []
    for number in _longest_first(lengths):
        if parts and (len(parts[-1]) + 1) * lengths[parts[-1][0]] <= room:
            parts[-1].append(number)
        else:
            parts.append([number])
    return parts


def in_order(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Splits sequences in their given order.

    Args:
        lengths: Size of each sequence.
        room: Size of a part.

    Returns:
        The numbers of the sequences in each part.
    """
    parts: list[list[int]] = []
    left = 0
    for number, length in enumerate(lengths):
        if length > left:
            parts.append([])
            left = room
        parts[-1].append(number)
        left -= length
    return parts


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda number: -lengths[number])


@dataclass(frozen=True)
class Layout:
    """How to split the rows of a step into parts.

    Attributes:
        room: Size of a part, in tokens or rows.
        length: Size of a row in the same unit.
        split: `packed`, `padded` or `in_order`.
        collate: Makes a batch of the rows of a part; `None` means the trainer's collator.
    """

    room: int
    length: Callable[[Row], int]
    split: Callable[[Sequence[int], int], list[list[int]]] = padded
    collate: Collate | None = None

    def parts(self, rows: Sequence[Row], collate: Collate) -> dict[str, Any]:
        """The batch of a step: `parts`, a batch each, and `rows`, the rows of each."""
        numbers = self.split([self.length(row) for row in rows], self.room)
        batches = [
            (self.collate or collate)([rows[n] for n in part]) for part in numbers
        ]
        return {"parts": batches, "rows": [len(part) for part in numbers]}


def all_rows_at_once(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Changes a trainer's arguments so that it takes all rows of a step as one batch."""
    rows = (
        arguments["per_device_train_batch_size"]
        * arguments["gradient_accumulation_steps"]
    )
    sizes = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": 1}
    return {**arguments, **sizes}


def in_parts(trainer_class: type[Any], layout: Layout) -> type[Any]:
    """A TRL trainer that forwards the rows of a step part by part.

    Args:
        trainer_class: A trainer with arguments from `all_rows_at_once`, whose loss is a
            mean over the rows of a batch, or a sum over tokens divided by their number in
            the step.
        layout: How to split training rows; evaluation is unchanged.
    """

    class PartwiseTrainer(trainer_class):  # type: ignore[misc]  # chosen by the caller
        data_collator: Any
        _weight = 1.0

        def get_train_dataloader(self) -> Any:
            plain = self.data_collator
            self.data_collator = lambda rows: layout.parts(rows, plain)
            try:
                return super().get_train_dataloader()
            finally:
                self.data_collator = plain

        def _get_num_items_in_batch(self, steps: list[Any], device: Any) -> Any:
            parts = [part for step in steps for part in step["parts"]]
            return super()._get_num_items_in_batch(parts, device)

        def training_step(self, model: Any, inputs: Any, items: Any = None) -> Any:
            parts, rows = inputs["parts"], inputs["rows"]
            # A loss divided by the tokens of the step (`items`) needs no weight.
            weights = [n / sum(rows) if items is None else 1.0 for n in rows]
            # Processes with fewer parts repeat one at weight 0, to stay in step.
            idle = _most_parts(self.accelerator, len(parts)) - len(parts)
            parts = parts + parts[:1] * idle
            weights = weights + [0.0] * idle
            losses = []
            for number, (part, weight) in enumerate(
                zip(parts, weights, strict=True), 1
            ):
                self._weight = weight
                last = number == len(parts)
                with nullcontext() if last else self.accelerator.no_sync(model):
                    losses.append(super().training_step(model, part, items))
            self._weight = 1.0
            return sum(losses)

        def compute_loss(self, *args: Any, **options: Any) -> Any:
            loss = super().compute_loss(*args, **options)
            # In evaluation the weight is 1, and the loss may come with outputs.
            return loss if self._weight == 1 else loss * self._weight

    return PartwiseTrainer


def _most_parts(accelerator: Any, mine: int) -> int:
    """The largest number of parts in any process."""
    import torch

    if accelerator.num_processes == 1:
        return mine
    count = torch.tensor([mine], device=accelerator.device)
    return int(accelerator.gather(count).max())
