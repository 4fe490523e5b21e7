"""Packed rows: sequences behind one another, without padding, that do not see each other.

Each sequence is attended to for itself, so there is no mask over the whole row, whose
size would be its square, and no work for what nobody sees. The rest of the model takes
a row token by token and never notices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from swebench_trainer.training.batching.microbatches import Row
from swebench_trainer.training.batching.shared_prefix import FAMILIES
from swebench_trainer.training.tokens.rows import ANSWER

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ATTENTION = "sdpa_by_sequence"
"""Our attention implementation, as transformers knows it."""


def obstacle(model: PreTrainedModel) -> str | None:
    """Why rows cannot be packed for this model; `None` if they can.

    Args:
        model: Without PEFT around it.
    """
    config = model.config
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is not among {', '.join(FAMILIES)}"
    attention = config._attn_implementation
    if attention not in ("sdpa", ATTENTION) and not _is_flash(attention):
        return f"{attention} is neither sdpa nor flash attention"
    if getattr(config, "sliding_window", None) is not None:
        return "its attention has a window"
    return None


def attend_by_sequence(model: PreTrainedModel) -> None:
    """Lets a model that attends with SDPA read what `collate` packs.

    Flash attention can do it by itself. Rows of one sequence, and batches that are
    filled up at the end, are read as before.
    """
    from transformers import AttentionInterface

    if model.config._attn_implementation == "sdpa":
        # transformers makes no mask for a name that only has an attention.
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
    """SDPA, causal, of each sequence for itself.

    Args:
        module: The attention layer.
        query: (batch, heads, tokens, size).
        key: As `query`; heads may be fewer.
        value: As `key`.
        _mask: There is none: padding stands behind what could see it.
        sequences: Tokens of each sequence; without, each row is one.
        options: For transformers' `sdpa_attention_forward`.

    Returns:
        (batch, tokens, heads, size), and no weights.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths = list(sequences or [query.shape[2]])
    parts = zip(
        *(torch.split(x, lengths, dim=2) for x in (query, key, value)), strict=True
    )
    attended = [sdpa_attention_forward(module, *x, None, **options)[0] for x in parts]
    return torch.cat(attended, dim=1), None


def collator(model: PreTrainedModel) -> Any:
    """What makes one packed row of rows with `input_ids` and `labels`."""
    flash = _is_flash(model.config._attn_implementation)
    return lambda rows: _collate(rows, flash=flash)


def _collate(rows: Sequence[Row], *, flash: bool) -> dict[str, Any]:
    import torch

    lengths = [len(row["input_ids"]) for row in rows]

    def joined(lists: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor([[item for one in lists for item in one]])

    batch: dict[str, Any] = {
        "input_ids": joined([row["input_ids"] for row in rows]),
        # The first token of a sequence is not predicted from the one before it.
        "labels": joined([[-100, *row["labels"][1:]] for row in rows]),
        "position_ids": joined([range(length) for length in lengths]),
    }
    if ANSWER in rows[0]:
        batch[ANSWER] = joined([row[ANSWER] for row in rows])
    if not flash:
        return batch | {"sequences": lengths}
    bounds = torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32)
    return batch | {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def _is_flash(attention: str) -> bool:
    return "flash" in attention  # by its own name or that of its kernel on the Hub
