"""Writes answers with a loaded transformers model, many at a time.

An answer depends on its own request alone: each has its own random generator, so the
batch size changes the speed and not the answers (up to the rounding of the kernels).
A prompt is read once for all its answers that are written together. Answers leave when
they end, and those that wait take their places.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.errors import StageError
from swebench_trainer.sampling.batch import Batch, Decoder, Row
from swebench_trainer.sampling.plain_cache import PlainCache
from swebench_trainer.sampling.shared_prompts import SharedPrompts, why_not


class TransformersSampler:
    """A `Sampler` over a causal language model.

    Args:
        model: A transformers or PEFT model in eval mode, on its device.
        encode: Prompt to token ids, ready for the answer to follow.
        decode: Token ids of an answer to its text.
        stop: Ids that end an answer.
        pad: Id that fills up a batch.
        batch_size: Answers written at once; halved for good when the GPU's
            memory is too small.
    """

    def __init__(
        self,
        model: Any,
        *,
        encode: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
        stop: frozenset[int],
        pad: int,
        batch_size: int,
    ) -> None:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        config = inner.config.get_text_config()
        self._decoder: Decoder = (
            PlainCache(inner, pad) if why_not(config) else SharedPrompts(inner, pad)
        )
        self._encode = encode
        self._decode = decode
        self._stop = stop
        self._batch_size = batch_size
        positions = getattr(config, "max_position_embeddings", None)
        self._positions: int = positions or sys.maxsize

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`. The longest prompts come first, similar ones together.

        A prompt that leaves the model no position to write at is not shown to it;
        its answer is empty, with `too long` as `finish`.

        Raises:
            StageError: The GPU's memory is too small for a single answer.
        """
        import torch

        rows = self._rows(requests)
        yield from (self._as_sample(row, "too long") for row in rows if row.most < 1)
        waiting = [row for row in rows if row.most > 0]
        batch = Batch(self._decoder, self._ending)
        while waiting or batch.rows:
            joining = self._joining(waiting, len(batch.rows))
            try:
                ended = batch.advance(joining)
            except torch.OutOfMemoryError:
                ended = None  # until the block is left, the error holds the memory
            if ended is None:
                self._halve([*batch.rows, *joining])
                waiting = batch.rows + waiting
                batch = Batch(self._decoder, self._ending)
                _free_memory()
                continue
            del waiting[: len(joining)]
            for row, end in ended:
                yield self._as_sample(row, end)

    def close(self) -> None:
        """Frees the model's memory."""
        del self._decoder
        _free_memory()

    def _rows(self, requests: Sequence[SampleRequest]) -> list[Row]:
        """The answers to be written, those to longer prompts first."""
        by_prompt: dict[str, list[SampleRequest]] = {}
        for request in requests:
            by_prompt.setdefault(request.prompt, []).append(request)
        rows = []
        for prompt, asked in by_prompt.items():
            ids = self._encode(prompt)
            room = self._positions - len(ids)
            rows += [Row(r, ids, min(r.max_new_tokens, room)) for r in asked]
        return sorted(rows, key=lambda row: len(row.prompt), reverse=True)

    def _joining(self, waiting: Sequence[Row], under_way: int) -> list[Row]:
        """The first of those that wait, as many as may begin now.

        They wait until half of the batch is free, since prompts are read faster
        together. Answers to one prompt begin together, and prompts of like length.
        """
        free = self._batch_size - under_way
        if under_way and not (self._decoder.joins and 2 * free >= self._batch_size):
            return []
        joining: list[Row] = []
        for _, group in groupby(waiting, key=lambda row: id(row.prompt)):
            same = list(group)
            alike = 2 * len(same[0].prompt) >= len(waiting[0].prompt)
            if not alike or len(joining) + len(same) > free:
                break
            joining += same
        if not (joining or under_way):  # one prompt has more answers than there is room
            return list(waiting[:free])
        return joining

    def _ending(self, row: Row) -> str:
        """Why an answer has ended; empty if it has not."""
        if row.ids[-1] in self._stop:
            return "stop"
        return "length" if len(row.ids) == row.most else ""

    def _halve(self, rows: Sequence[Row]) -> None:
        """Allows half of what did not fit the memory."""
        if len(rows) == 1:
            raise StageError(
                f"The GPU's memory is too small for one answer to a prompt of {len(rows[0].prompt)} tokens.",
                hint="Lower max_new_tokens, choose a prompt style with less context, or set [model] quantization.",
            )
        self._batch_size = min(self._batch_size, len(rows)) // 2

    def _as_sample(self, row: Row, end: str) -> Sample:
        return Sample(
            instance_id=row.request.instance_id,
            sample=row.request.sample,
            text=self._decode(row.ids[:-1] if end == "stop" else row.ids),
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.ids),
            finish=end,
        )


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
