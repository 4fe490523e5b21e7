"""Muon, an optimizer for models that are trained whole.

A Muon step is the momentum of a matrix's gradient with all singular values set to about
one, so that directions which few rows need are learned as fast as common ones. Muon is
for the matrices inside a network; AdamW trains embeddings, norms and biases
(https://kellerjordan.github.io/posts/muon/). torch has both; here each gets its part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import AdamW, Muon, Optimizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MuonAndAdamW(Optimizer):
    """Two optimizers that are scheduled, saved and resumed as one.

    Args:
        matrices: Two-dimensional weights for Muon.
        others: Parameter groups for AdamW, in torch's format.
        learning_rate: Learning rate of both; Muon's steps are scaled to the size of
            AdamW's (https://arxiv.org/abs/2502.16982).
        weight_decay: Weight decay of `matrices`.
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
        """Runs a step of each; see `torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Loading a state replaces the groups and the state of this object.
        self._muon.param_groups, self._adamw.param_groups = (
            self.param_groups[:1],
            self.param_groups[1:],
        )
        for part in (self._muon, self._adamw):
            part.state = self.state
            part.step()  # type: ignore[no-untyped-call]  # torch's Muon is untyped
        return loss


def muon_for(
    model: PreTrainedModel, learning_rate: float, weight_decay: float
) -> MuonAndAdamW:
    """Muon for the linear layers of a model, AdamW for its embeddings, head, norms and biases.

    Args:
        model: A model of which every weight is trained.
        learning_rate: Maximum learning rate; the schedule scales it.
        weight_decay: Weight decay of all weights except norms and biases.
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
