"""Muon: steps of a whole matrix at a time, for models that are trained whole.

Its step is the gradient's momentum with every singular value made about one, so that
directions which few rows ask for are learned as fast as common ones. It is for the matrices
inside a network; embeddings, norms and biases stay with AdamW
(https://kellerjordan.github.io/posts/muon/). torch has both, and each takes its part here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import AdamW, Muon, Optimizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MuonAndAdamW(Optimizer):
    """One optimizer of two, so that it is scheduled, saved and resumed as one.

    Args:
        matrices: Weights for Muon, each of two dimensions.
        others: Groups of parameters for AdamW, as torch takes them.
        learning_rate: Of both: Muon's steps are scaled to the size of AdamW's
            (https://arxiv.org/abs/2502.16982).
        weight_decay: Of `matrices`.
    """

    def __init__(
        self,
        matrices: Iterable[torch.Tensor],
        others: list[dict[str, Any]],
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self._muon = Muon(
            matrices,
            lr=learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = AdamW(others, lr=learning_rate)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step of each; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Whoever loads a state puts new groups and a new state into this object.
        self._muon.param_groups, self._adamw.param_groups = (
            self.param_groups[:1],
            self.param_groups[1:],
        )
        for part in (self._muon, self._adamw):
            part.state = self.state
            part.step()  # type: ignore[no-untyped-call]  # torch's Muon has no types
        return loss


def muon_for(
    model: PreTrainedModel, learning_rate: float, weight_decay: float
) -> MuonAndAdamW:
    """Muon for the linear layers of a model, AdamW for its embeddings, head, norms and biases.

    Args:
        model: All of its weights are trained.
        learning_rate: The highest one; a schedule scales it.
        weight_decay: Of everything but norms and biases.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    outer = {id(end.weight) for end in ends}
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    matrices = [m.weight for m in linear if id(m.weight) not in outer]
    inner = {id(matrix) for matrix in matrices}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in inner]
    return MuonAndAdamW(
        matrices,
        [
            {
                "params": [p for p in others if p.ndim > 1],
                "weight_decay": weight_decay,
            },
            {"params": [p for p in others if p.ndim == 1], "weight_decay": 0.0},
        ],
        learning_rate,
        weight_decay,
    )
