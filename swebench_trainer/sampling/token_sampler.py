"""Draws the next token of each row by the row's own settings and its own chance.

Which token it is depends on nothing else: not on the other rows, nor on how many
there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swebench_trainer.contracts import SampleRequest

if TYPE_CHECKING:
    import torch

WIDTH = 16
"""Most likely tokens that are looked at first; hardly ever is one beyond them drawn."""


def chances(seed: int, count: int) -> list[float]:
    """What a row draws with: so many numbers in [0, 1), the same on every device."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, generator=generator, dtype=torch.float64)
    return [float(number) for number in numbers.tolist()]


class Draws:
    """Chooses tokens for some rows.

    Args:
        requests: One for each row, with its temperature, top-k, top-p and min-p.
        device: Where the logits are.
    """

    def __init__(self, requests: Sequence[SampleRequest], device: Any) -> None:
        import torch

        drawn = [row for row, r in enumerate(requests) if r.temperature > 0]
        asked = [requests[row] for row in drawn]
        self._drawn = drawn
        self._rows = torch.tensor(drawn, device=device)
        self._temperature = _column([r.temperature for r in asked], device)
        self._top_p = _column([r.top_p for r in asked], device)
        self._min_p = _column([r.min_p for r in asked], device)
        self._top_k = _column([r.top_k for r in asked], device)
        cut = [r.top_p < 1 or r.top_k > 0 or r.min_p > 0 for r in asked]
        self._cut = torch.tensor(cut, device=device, dtype=torch.bool)

    def __call__(self, logits: torch.Tensor, chance: Sequence[float]) -> list[int]:
        """The next token of each row.

        Args:
            logits: (rows, vocabulary).
            chance: A number in [0, 1) for each row; greedy ones ignore theirs.
        """
        tokens = logits.argmax(-1)
        if self._drawn:
            wanted = _column([chance[row] for row in self._drawn], logits.device)
            rows = logits if len(self._drawn) == len(logits) else logits[self._rows]
            tokens[self._rows] = self._draw(rows.float(), wanted)
        return [int(token) for token in tokens.tolist()]

    def _draw(self, logits: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
        import torch

        shares = (logits / self._temperature.float()).softmax(-1)
        tokens = torch.empty(len(shares), dtype=torch.long, device=shares.device)
        todo = (~self._cut).nonzero()[:, 0]
        if len(todo):
            tokens[todo] = _pick(shares[todo], chance[todo])
        todo = self._cut.nonzero()[:, 0]
        width = WIDTH
        while len(todo):
            width = min(width, shares.shape[1])
            likely, order = shares[todo].topk(width)
            kept, decided = self._kept(likely, todo, whole=width == shares.shape[1])
            picked = order.gather(1, _pick(kept, chance[todo])[:, None])[:, 0]
            tokens[todo[decided]] = picked[decided]
            todo = todo[~decided]
            width *= 64
        return tokens

    def _kept(
        self, likely: torch.Tensor, rows: torch.Tensor, *, whole: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The shares of the tokens that may be drawn, and whether none is beyond them.

        Args:
            likely: The largest shares of each row, in falling order.
            rows: Which rows they are.
            whole: Whether they are all.
        """
        import torch

        width = likely.shape[1]
        top_k, top_p, min_p = (x[rows] for x in (self._top_k, self._top_p, self._min_p))
        rank = torch.arange(width, device=likely.device)
        inside = (rank < top_k) | (top_k == 0)
        # Top-p is a part of what top-k leaves.
        mass = torch.where(top_k > 0, (likely * inside).sum(-1, keepdim=True), 1.0)
        before = likely.cumsum(-1) - likely
        kept = inside & (before < top_p * mass) & (likely >= min_p * likely[:, :1])
        kept[:, 0] = True
        decided = torch.where(top_k > 0, top_k <= width, ~kept[:, -1:])[:, 0]
        return likely * kept, decided | whole


def _column(values: Sequence[float], device: Any) -> torch.Tensor:
    import torch

    return torch.tensor(values, device=device, dtype=torch.float64)[:, None]


def _pick(shares: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """The place in each row at which the sum of the shares passes its chance."""
    import torch

    sums = shares.double().cumsum(-1)
    target = chance * sums[:, -1:]
    # Rounding must not lead to a place behind the last share.
    last = (sums < sums[:, -1:]).sum(-1)
    return torch.minimum((sums <= target).sum(-1), last)
