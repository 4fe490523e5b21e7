"""Samples with a vLLM engine, which reads each prompt once for all its samples."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from swebench_trainer.contracts import Sample, SampleRequest
from swebench_trainer.hf import Codec

CHUNK = 512
"""Requests per call of the engine: enough to fill a GPU, few enough to lose in a crash."""


class VllmSampler:
    """A `Sampler` over `vllm.LLM`.

    Args:
        engine: The engine; it gets prompts as token ids, the same as in training.
        parameters: Makes `vllm.SamplingParams`.
        codec: Text to token ids and back.
        lora: The adapter to apply, if any.
    """

    def __init__(
        self,
        engine: Any,
        parameters: Callable[..., Any],
        codec: Codec,
        *,
        lora: Any = None,
    ) -> None:
        self._engine = engine
        self._parameters = parameters
        self._codec = codec
        self._stop = sorted(codec.stop)
        self._lora = lora
        self._length: int = engine.llm_engine.model_config.max_model_len

    def sample(self, requests: Sequence[SampleRequest]) -> Iterator[Sample]:
        """See `Sampler.sample`. Groups the samples of each prompt.

        A prompt that leaves no room for an answer is skipped: its answer is empty, with
        `too long` as `finish`.
        """
        queue: list[tuple[list[int], SampleRequest]] = []
        encoded: dict[str, list[int]] = {}
        for request in sorted(requests, key=lambda r: r.prompt):
            if request.prompt not in encoded:
                encoded = {request.prompt: self._codec.encode(request.prompt)}
            ids = encoded[request.prompt]
            room = self._length - len(ids)
            if room > 0:
                limit = min(request.max_new_tokens, room)
                queue.append((ids, replace(request, max_new_tokens=limit)))
            else:
                yield _empty(request, len(ids))
        for start in range(0, len(queue), CHUNK):
            yield from self._write(queue[start : start + CHUNK])

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
            cut_off = answer.finish_reason == "length"
            opening = self._codec.opened(ids) if cut_off else ""
            written = [i for i in answer.token_ids if i not in self._stop]
            yield Sample(
                instance_id=request.instance_id,
                sample=request.sample,
                text=opening + self._codec.decode(written),
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
