"""Continuous batching with a loaded transformers model.

Each answer has its own random generator and depends only on its request, so the batch
size affects speed but not answers (up to rounding in the kernels). A prompt is read once
for all answers that are generated together. Finished answers are replaced by waiting
ones.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.errors import StageError
from swebench_trainer.sampling.batch import Batch, Decoder, Generation
from swebench_trainer.sampling.plain_cache import PlainCache
from swebench_trainer.sampling.shared_prompts import SharedPrompts, why_not
from swebench_trainer.types import Finish


class TransformersSampler:
    """A `Sampler` over a causal language model.

    Args:
        model: A transformers or PEFT model in eval mode, on its device.
        encode: Converts a prompt to token ids, including the start of the answer turn.
        decode: Converts token ids of an answer to text.
        stop: Token ids that end an answer.
        pad: Padding token id.
        batch_size: Maximum number of concurrent answers; halved permanently when the
            GPU runs out of memory.
        opened: Returns the opening of a thought that a prompt's token ids end with. An
            answer that is cut off starts with it: without its end the thought may be
            all that there is.
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
        opened: Callable[[Sequence[int]], str] = lambda _: "",
    ) -> None:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        config = inner.config.get_text_config()
        self._decoder: Decoder = (
            PlainCache(inner, pad) if why_not(config) else SharedPrompts(inner, pad)
        )
        self._encode = encode
        self._decode = decode
        self._opened = opened
        self._stop = stop
        self._batch_size = batch_size
        positions = getattr(config, "max_position_embeddings", None)
        self._positions: int = positions or sys.maxsize

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`. The longest prompts come first, similar lengths together.

        A prompt that fills all positions of the model gets an empty answer with
        `Finish.TOO_LONG`.

        Raises:
            StageError: The GPU memory is too small for a single answer.
        """
        import torch

        rows = self._rows(requests)
        for row in rows:
            if row.max_tokens < 1:
                yield self._as_sample(row, Finish.TOO_LONG)
        waiting = [row for row in rows if row.max_tokens > 0]
        batch = Batch(self._decoder, self._finish_of)
        while waiting or batch.rows:
            joining = self._joining(waiting, len(batch.rows))
            try:
                ended = batch.advance(joining)
            except torch.OutOfMemoryError:
                ended = None  # the error references the memory until the block ends
            if ended is None:
                self._halve([*batch.rows, *joining])
                waiting = batch.rows + waiting
                batch = Batch(self._decoder, self._finish_of)
                _free_memory()
                continue
            del waiting[: len(joining)]
            for row, finish in ended:
                yield self._as_sample(row, finish)

    def close(self) -> None:
        """Free the model's memory."""
        del self._decoder
        _free_memory()

    def _rows(self, requests: Sequence[SampleRequest]) -> list[Generation]:
        """The answers to generate, longest prompts first."""
        by_prompt: dict[str, list[SampleRequest]] = {}
        for request in requests:
            by_prompt.setdefault(request.prompt, []).append(request)
        rows = []
        for prompt, own in by_prompt.items():
            ids = self._encode(prompt)
            room = self._positions - len(ids)
            rows += [Generation(r, ids, min(r.max_new_tokens, room)) for r in own]
        return sorted(rows, key=lambda row: len(row.prompt), reverse=True)

    def _joining(
        self, waiting: Sequence[Generation], unfinished: int
    ) -> list[Generation]:
        """The waiting answers that start now.

        Answers wait until half of the batch is free, because prompts are read faster
        together. Answers to one prompt start together, with prompts of similar length.
        """
        free = self._batch_size - unfinished
        if unfinished and not (self._decoder.joins and 2 * free >= self._batch_size):
            return []
        joining: list[Generation] = []
        for _, group in groupby(waiting, key=lambda row: id(row.prompt)):
            same = list(group)
            alike = 2 * len(same[0].prompt) >= len(waiting[0].prompt)
            if not alike or len(joining) + len(same) > free:
                break
            joining += same
        if joining or unfinished:
            return joining
        return list(waiting[:free])  # one prompt has more answers than the batch size

    def _finish_of(self, row: Generation) -> Finish | None:
        """Why an answer is finished; `None` if it is not."""
        if row.ids[-1] in self._stop:
            return Finish.STOP
        return Finish.LENGTH if len(row.ids) == row.max_tokens else None

    def _halve(self, rows: Sequence[Generation]) -> None:
        """Halve the batch size after running out of memory."""
        if len(rows) == 1:
            raise StageError(
                f"The GPU memory is too small for one answer to a prompt of {len(rows[0].prompt)} tokens.",
                hint="Lower max_new_tokens, use a prompt style with less context, or set [model] quantization.",
            )
        self._batch_size = min(self._batch_size, len(rows)) // 2

    def _as_sample(self, row: Generation, finish: Finish) -> Sample:
        opening = self._opened(row.prompt) if finish is Finish.LENGTH else ""
        ids = row.ids[:-1] if finish is Finish.STOP else row.ids
        return Sample(
            instance_id=row.request.instance_id,
            sample=row.request.sample,
            text=opening + self._decode(ids),
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.ids),
            finish=finish,
        )


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
