"""Writes answers with a loaded transformers model, a batch at a time.

An answer depends on its own request alone: each row of a batch draws from its
own random generator, so the batch size changes the speed and not the answers
(up to the rounding of the kernels).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.errors import StageError

if TYPE_CHECKING:
    import torch

Encoded = tuple[list[int], SampleRequest]
"""A request with the ids of its prompt."""


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
        from transformers import GenerationConfig

        # A checkpoint's own defaults (top-k, repetition penalty) would change the
        # distribution that the recipe asks for.
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=sorted(stop), pad_token_id=pad
        )
        self._model = model
        self._encode = encode
        self._decode = decode
        self._stop = stop
        self._pad = pad
        self._batch_size = batch_size
        config = model.config.get_text_config()
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

        queue: list[Encoded] = []
        for request in requests:
            ids = self._encode(request.prompt)
            if room := self._room(ids):
                length = min(request.max_new_tokens, room)
                queue.append((ids, replace(request, max_new_tokens=length)))
            else:
                yield _too_long(request, len(ids))
        queue.sort(key=lambda item: len(item[0]), reverse=True)
        while queue:
            batch = self._first_batch(queue)
            try:
                samples = self._write(batch)
            except torch.OutOfMemoryError:
                if self._batch_size == 1:
                    raise StageError(
                        f"The GPU's memory is too small for one answer to a prompt of {len(batch[0][0])} tokens.",
                        hint="Lower max_new_tokens, choose a prompt style with less context, or set [model] quantization.",
                    ) from None
                self._batch_size = min(self._batch_size, len(batch)) // 2 or 1
                _free_memory()
                continue
            yield from samples
            del queue[: len(batch)]

    def close(self) -> None:
        """Frees the model's memory."""
        self._model = None
        _free_memory()

    def _room(self, ids: list[int]) -> int:
        """Tokens that the model can write behind a prompt."""
        return max(0, self._positions - len(ids))

    def _first_batch(self, queue: Sequence[Encoded]) -> list[Encoded]:
        """The first requests that can be answered together.

        Every row is written on until the longest answer is there. A request that
        would so push the longest prompt out of its positions waits.
        """
        room = self._room(queue[0][0])
        first = queue[: self._batch_size]
        return list(takewhile(lambda item: item[1].max_new_tokens <= room, first))

    def _write(self, batch: Sequence[Encoded]) -> list[Sample]:
        """Answers the requests of one batch, given with their prompts' ids."""
        import torch
        from transformers import LogitsProcessorList

        width = len(batch[0][0])
        device = self._model.device
        padding = [width - len(ids) for ids, _ in batch]
        ids = [
            [self._pad] * gap + ids
            for gap, (ids, _) in zip(padding, batch, strict=True)
        ]
        mask = [[0] * gap + [1] * (width - gap) for gap in padding]
        requests = [request for _, request in batch]
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=max(r.max_new_tokens for r in requests),
                logits_processor=LogitsProcessorList(
                    [gumbel_sampler(requests, device)]
                ),
            )
        answers = output[:, width:].tolist()
        return [
            self._as_sample(request, len(prompt), answer)
            for (prompt, request), answer in zip(batch, answers, strict=True)
        ]

    def _as_sample(
        self, request: SampleRequest, prompt_tokens: int, ids: list[int]
    ) -> Sample:
        ids = ids[: request.max_new_tokens]
        end = next((i for i, token in enumerate(ids) if token in self._stop), None)
        return Sample(
            instance_id=request.instance_id,
            sample=request.sample,
            text=self._decode(ids[:end]),
            prompt_tokens=prompt_tokens,
            completion_tokens=len(ids) if end is None else end + 1,
            finish="length" if end is None else "stop",
        )


def _too_long(request: SampleRequest, prompt_tokens: int) -> Sample:
    return Sample(
        instance_id=request.instance_id,
        sample=request.sample,
        text="",
        prompt_tokens=prompt_tokens,
        finish="too long",
    )


def gumbel_sampler(
    requests: Sequence[SampleRequest],
    device: Any,
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A logits processor that makes the greedy choice an exact random one.

    The largest of `log p + Gumbel noise` is distributed as `p`. The noise of each
    row comes from the row's own generator, whatever else is in the batch.

    Args:
        requests: One per row, with temperature, top-p and seed.
        device: Where the scores are.

    Returns:
        A function of the ids so far, `(rows, length)`, and the scores of the
        next token, `(rows, vocabulary)`, giving scores to take the largest of.
    """
    import torch

    generators = [torch.Generator(device).manual_seed(r.seed) for r in requests]

    def choose(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        for row, (request, generator) in enumerate(
            zip(requests, generators, strict=True)
        ):
            if request.temperature > 0:
                logits = _nucleus(scores[row] / request.temperature, request.top_p)
                noise = torch.empty_like(logits).exponential_(generator=generator)
                scores[row] = logits - noise.log()
        return scores

    return choose


def _nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keeps the smallest set of tokens with probability `top_p`; one at least."""
    if top_p >= 1:
        return logits
    ordered, order = logits.sort(descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return logits.index_fill(-1, order[before >= top_p], float("-inf"))


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
