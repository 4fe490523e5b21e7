"""Packed rows: sequences one after another, without padding, that do not see each other.

Only attention looks across tokens, so only attention must know where sequences begin:

    ids        a0 a1 a2 b0 b1      (1, tokens)
    positions   0  1  2  0  1      (1, tokens)
    sequences  [3, 2]              tokens of each sequence

Queries, keys and values (1, heads, tokens, size) are split into the sequences, attended
one by one, and concatenated. This needs no mask of (tokens, tokens), and computes nothing
that the mask would hide. The rest of the model works token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from swebench_trainer.training.batching.microbatches import Row
from swebench_trainer.training.batching.shared_prefix import family_obstacle
from swebench_trainer.training.tokens.rows import ANSWER, IGNORED

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ATTENTION = "sdpa_by_sequence"
"""Name of our attention implementation in transformers."""


def obstacle(model: PreTrainedModel) -> str | None:
    """Why rows cannot be packed for this model; `None` if they can.

    Args:
        model: The transformers model inside PEFT.
    """
    attention = model.config._attn_implementation
    if attention not in ("sdpa", ATTENTION) and not _is_flash(attention):
        return f"{attention} is neither sdpa nor flash attention"
    return family_obstacle(model.config)


def attend_by_sequence(model: PreTrainedModel) -> None:
    """Makes a model with SDPA read the packed rows of `collator`.

    Flash attention supports them already. Rows of one sequence, and batches with padding
    at the end, are read as before.
    """
    from transformers import AttentionInterface

    if model.config._attn_implementation == "sdpa":
        # transformers builds no mask for a name that is only registered as attention.
        AttentionInterface.register(ATTENTION, _attend)
        model.set_attn_implementation(ATTENTION)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    sequences: Sequence[int] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal SDPA within each sequence.

    Args:
        module: The attention layer.
        query: (batch, heads, tokens, size).
        key: (batch, key heads, tokens, size).
        value: (batch, key heads, tokens, size).
        _mask: Always `None`: padding is at the end, where no other token sees it.
        sequences: Tokens of each sequence; `None` if each row is one sequence.
        options: Passed on to transformers' `sdpa_attention_forward`.

    Returns:
        (batch, tokens, heads, size), and `None` for the attention weights.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths = list(sequences or [query.shape[2]])
    queries, keys, values = (
        torch.split(x, lengths, dim=2) for x in (query, key, value)
    )
    attended = [  # each (batch, tokens of the sequence, heads, size)
        sdpa_attention_forward(module, q, k, v, None, **options)[0]
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(attended, dim=1), None


def collator(model: PreTrainedModel) -> Any:
    """A collator that makes one packed row of rows with `input_ids` and `labels`."""
    flash = _is_flash(model.config._attn_implementation)
    return lambda rows: _collate(rows, flash=flash)


def _collate(rows: Sequence[Row], *, flash: bool) -> dict[str, Any]:
    """Tensors of (1, tokens), and the bounds of the sequences."""
    import torch

    lengths = [len(row["input_ids"]) for row in rows]

    def joined(lists: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor([[item for one in lists for item in one]])

    batch: dict[str, Any] = {
        "input_ids": joined([row["input_ids"] for row in rows]),
        # The sequence before must not predict a sequence's first token.
        "labels": joined([[IGNORED, *row["labels"][1:]] for row in rows]),
        "position_ids": joined([range(length) for length in lengths]),
    }
    if ANSWER in rows[0]:
        batch[ANSWER] = joined([row[ANSWER] for row in rows])
    if not flash:
        return batch | {"sequences": lengths}
    # (sequences + 1,): where each sequence begins, and the end of the last.
    bounds = torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32)
    return batch | {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def _is_flash(attention: str) -> bool:
    # In transformers' own name, and in the names of kernels on the Hub.
    return "flash" in attention
