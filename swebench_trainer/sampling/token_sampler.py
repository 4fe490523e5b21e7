"""Sampling of the next token of each row, independent of the other rows in the batch.

Each row has its own settings and its own uniform random number per token. The number is
mapped to a token by inverse transform sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swebench_trainer.contracts import SampleRequest

if TYPE_CHECKING:
    import torch

WIDTH = 16
"""Number of most likely tokens to try first; others are rarely drawn."""


def uniforms(seed: int, count: int) -> list[float]:
    """Random numbers in [0, 1) for the tokens of a row, equal on every device."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, generator=generator, dtype=torch.float64)
    return [float(number) for number in numbers.tolist()]


class TokenSampler:
    """Chooses the next tokens of a batch of rows.

    Args:
        requests: The request of each row, with temperature, top-k, top-p and min-p.
        device: Device of the logits.
    """

    def __init__(self, requests: Sequence[SampleRequest], device: Any) -> None:
        import torch

        sampled = [row for row, r in enumerate(requests) if r.temperature > 0]
        own = [requests[row] for row in sampled]
        self._sampled = sampled
        self._rows = torch.tensor(sampled, device=device)
        self._temperature = _column([r.temperature for r in own], device)
        self._top_p = _column([r.top_p for r in own], device)
        self._min_p = _column([r.min_p for r in own], device)
        self._top_k = _column([r.top_k for r in own], device)
        cut = [r.top_p < 1 or r.top_k > 0 or r.min_p > 0 for r in own]
        self._cut = torch.tensor(cut, device=device, dtype=torch.bool)

    def __call__(self, logits: torch.Tensor, uniform: Sequence[float]) -> list[int]:
        """The next token of each row.

        Args:
            logits: (rows, vocabulary).
            uniform: A random number in [0, 1) for each row; ignored by greedy rows.
        """
        tokens = logits.argmax(-1)
        if self._sampled:
            numbers = _column([uniform[row] for row in self._sampled], logits.device)
            rows = logits if len(self._sampled) == len(logits) else logits[self._rows]
            tokens[self._rows] = self._draw(rows.float(), numbers)
        return [int(token) for token in tokens.tolist()]

    def _draw(self, logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        import torch

        probs = (logits / self._temperature.float()).softmax(-1)
        tokens = torch.empty(len(probs), dtype=torch.long, device=probs.device)
        todo = (~self._cut).nonzero()[:, 0]
        if len(todo):
            tokens[todo] = _pick(probs[todo], uniform[todo])
        todo = self._cut.nonzero()[:, 0]
        width = WIDTH
        while len(todo):
            width = min(width, probs.shape[1])
            likely, order = probs[todo].topk(width)
            kept, decided = self._kept(likely, todo, whole=width == probs.shape[1])
            picked = order.gather(1, _pick(kept, uniform[todo])[:, None])[:, 0]
            tokens[todo[decided]] = picked[decided]
            todo = todo[~decided]
            width *= 64
        return tokens

    def _kept(
        self, likely: torch.Tensor, rows: torch.Tensor, *, whole: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The probabilities after top-k, top-p and min-p, and whether they are final.

        Args:
            likely: The largest probabilities of each row, descending, (rows, width).
            rows: Indexes of the rows.
            whole: Whether `width` is the whole vocabulary.

        Returns:
            Probabilities with 0 for excluded tokens, (rows, width); whether no token
            beyond `width` is allowed, (rows,).
        """
        import torch

        width = likely.shape[1]
        top_k, top_p, min_p = (x[rows] for x in (self._top_k, self._top_p, self._min_p))
        rank = torch.arange(width, device=likely.device)
        inside = (rank < top_k) | (top_k == 0)
        # Top-p applies to the mass that top-k leaves.
        mass = torch.where(top_k > 0, (likely * inside).sum(-1, keepdim=True), 1.0)
        before = likely.cumsum(-1) - likely
        kept = inside & (before < top_p * mass) & (likely >= min_p * likely[:, :1])
        kept[:, 0] = True
        decided = torch.where(top_k > 0, top_k <= width, ~kept[:, -1:])[:, 0]
        return likely * kept, decided | whole


def _column(values: Sequence[float], device: Any) -> torch.Tensor:
    import torch

    return torch.tensor(values, device=device, dtype=torch.float64)[:, None]


def _pick(probs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The index in each row at which the cumulative probability exceeds its number."""
    import torch

    sums = probs.double().cumsum(-1)
    target = uniform * sums[:, -1:]
    # Rounding must not select an index after the last nonzero probability.
    last = (sums < sums[:, -1:]).sum(-1)
    return torch.minimum((sums <= target).sum(-1), last)
