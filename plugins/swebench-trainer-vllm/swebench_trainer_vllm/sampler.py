"""Writes answers with an engine of vLLM, which reads a prompt once for its samples."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from swebench_trainer.contracts import Sample, SampleRequest

AT_ONCE = 512
"""Requests that are handed over together: enough to fill a GPU, few enough to lose."""


class VllmSampler:
    """A `Sampler` over `vllm.LLM`.

    Args:
        engine: The engine; prompts go there as token ids, those of training.
        parameters: Makes `vllm.SamplingParams`.
        encode: Prompt to token ids.
        decode: Token ids of an answer to its text.
        stop: Ids that end an answer.
        lora: The adapter to answer with, if any.
    """

    def __init__(
        self,
        engine: Any,
        parameters: Callable[..., Any],
        *,
        encode: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
        stop: list[int],
        lora: Any = None,
    ) -> None:
        self._engine = engine
        self._parameters = parameters
        self._encode = encode
        self._decode = decode
        self._stop = stop
        self._lora = lora
        self._length: int = engine.llm_engine.model_config.max_model_len

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`. The samples of a prompt go together.

        A prompt that leaves no room to answer is not shown to the model; its answer is
        empty, with `too long` as `finish`.
        """
        queue: list[tuple[list[int], SampleRequest]] = []
        encoded: dict[str, list[int]] = {}
        for request in sorted(requests, key=lambda r: r.prompt):
            if request.prompt not in encoded:
                encoded = {request.prompt: self._encode(request.prompt)}
            ids = encoded[request.prompt]
            room = self._length - len(ids)
            if room > 0:
                limit = min(request.max_new_tokens, room)
                queue.append((ids, replace(request, max_new_tokens=limit)))
            else:
                yield _empty(request, len(ids))
        for start in range(0, len(queue), AT_ONCE):
            yield from self._write(queue[start : start + AT_ONCE])

    def close(self) -> None:
        """Frees the GPU's memory."""
        self._engine = None
        gc.collect()

    def _write(self, batch: list[tuple[list[int], SampleRequest]]) -> Iterator[Sample]:
        outputs = self._engine.generate(
            [{"prompt_token_ids": ids} for ids, _ in batch],
            [self._settings(request) for _, request in batch],
            lora_request=self._lora,
            use_tqdm=False,
        )
        for (ids, request), output in zip(batch, outputs, strict=True):
            (answer,) = output.outputs
            written = [i for i in answer.token_ids if i not in self._stop]
            yield Sample(
                instance_id=request.instance_id,
                sample=request.sample,
                text=self._decode(written),
                prompt_tokens=len(ids),
                completion_tokens=len(answer.token_ids),
                finish=answer.finish_reason or "",
            )

    def _settings(self, request: SampleRequest) -> Any:
        return self._parameters(
            max_tokens=request.max_new_tokens,
            temperature=request.temperature,
            top_p=request.top_p if request.temperature else 1.0,
            top_k=getattr(request, "top_k", 0) if request.temperature else 0,
            min_p=getattr(request, "min_p", 0.0) if request.temperature else 0.0,
            seed=request.seed,
            stop_token_ids=self._stop,
        )


def _empty(request: SampleRequest, prompt_tokens: int) -> Sample:
    return Sample(
        request.instance_id,
        request.sample,
        text="",
        prompt_tokens=prompt_tokens,
        finish="too long",
    )
