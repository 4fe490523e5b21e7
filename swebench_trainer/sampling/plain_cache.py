"""Decoding with the cache of transformers, for any causal language model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class PlainCache:
    """A `Decoder` that reads each prompt once and copies its cache for each answer.

    Args:
        model: A model in eval mode on its device, without a PEFT wrapper; injected
            adapters are used.
        pad: Padding token id.
    """

    joins = False

    def __init__(self, model: Any, pad: int) -> None:
        self._model = model
        self._pad = pad
        self._places = "position_ids" in inspect.signature(model.forward).parameters
        self._cache: Any = None
        self._mask: Any = None

    def read(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[int]
    ) -> torch.Tensor:
        """See `Decoder.read`."""
        import torch

        device = self._model.device
        width = max(map(len, prompts))
        ids = [[*[self._pad] * (width - len(prompt)), *prompt] for prompt in prompts]
        mask = [[int(i >= width - len(p)) for i in range(width)] for p in prompts]
        self._mask = torch.tensor(mask, device=device)
        places = (self._mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._forward(torch.tensor(ids, device=device), places)
        copies = [row for row, count in enumerate(answers) for _ in range(count)]
        self.keep(copies)
        return logits[copies]

    def write(self, tokens: Sequence[int]) -> torch.Tensor:
        """See `Decoder.write`."""
        import torch

        ids = torch.tensor(tokens, device=self._mask.device)[:, None]
        places = self._mask.sum(-1, keepdim=True)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=-1)
        return self._forward(ids, places)

    def keep(self, rows: Sequence[int]) -> None:
        """See `Decoder.keep`."""
        import torch

        if not rows:
            self.clear()
            return
        index = torch.tensor(rows, device=self._mask.device)
        self._mask = self._mask[index]
        self._cache.reorder_cache(index)

    def clear(self) -> None:
        """See `Decoder.clear`."""
        self._cache = self._mask = None

    def _forward(self, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **({"position_ids": places} if self._places else {}),
        )
        self._cache = output.past_key_values
        logits: torch.Tensor = output.logits[:, -1]
        return logits
