"""DPO that reads each prompt once for all its answers in a micro-batch.

Plain DPO reads prompt + chosen and prompt + rejected, the prompt twice. Here a prompt and
its answers are one row, with a mask in which each answer sees the prompt and itself:

    tokens     p0 p1 p2 │ p3 a0 a1 │ p3 b0 b1 │      prompt p0 … p3, answers a0 … a2, b0 … b2
    segments    0  0  0 │  1  1  1 │  2  2  2 │      0 is the prompt, 1 and 2 the answers
    positions   0  1  2 │  3  4  5 │  3  4  5 │      as in prompt + answer

The last prompt token (p3) starts each answer, because its hidden state predicts the
answer's first token. The last token of an answer (a2, b2) predicts nothing and is left
out. Each hidden state is the same as in prompt + answer.

TRL's trainer does not need to know. Its batch has one sequence per answer, p3 a0 a1 a2 and
p3 b0 b1 b2, and its mask of trained tokens:

    TRL's batch           (2 * pairs, answer + 1)
    our rows              (prompts, row)
    hidden states         (prompts, row, size) → flattened (prompts * row, size)
    → TRL's batch         (2 * pairs, answer + 1, size), gathered by `places`

The backbone reads our rows and returns hidden states in the shape of TRL's batch; losses,
metrics and the fused head stay TRL's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "starcoder2")
"""Values of `model_type` for which tests show that it equals plain DPO."""

ATTENTIONS = ("sdpa", "flex_attention")
"""Attention implementations that accept a custom mask."""

PROMPT = 0
"""Segment of the tokens that all answers see; answers have segments from 1."""

PADDING = -1
"""Segment of padding, at the end of a row."""


@dataclass(frozen=True)
class SharedRow:
    """A prompt and its answers in one row.

    Attributes:
        ids: Token ids, (row,).
        positions: Position of each token in prompt + answer, (row,).
        segments: `PROMPT` or the number of the answer, (row,).
        parts: Indexes of each answer in the row, (answers, answer length).
    """

    ids: list[int]
    positions: list[int]
    segments: list[int]
    parts: list[range]


def pack(prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> SharedRow:
    """Packs a prompt of at least one token and its answers into one row."""
    *shared, last = prompt
    depth = len(shared)
    row = SharedRow(shared, list(range(depth)), [PROMPT] * depth, [])
    for number, answer in enumerate(answers, start=1):
        part = [last, *answer[:-1]]
        row.parts.append(range(len(row.ids), len(row.ids) + len(part)))
        row.positions.extend(range(depth, depth + len(part)))
        row.segments.extend([number] * len(part))
        row.ids.extend(part)
    return row


@dataclass(frozen=True)
class SharedPrefixCollator:
    """Collates TRL's preference batch, plus one row per prompt for `share_prefixes`.

    Args:
        pad: Id for padding.
    """

    pad: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collates pairs, chosen answers first; an answer in two pairs is read once.

        Args:
            examples: Rows with `prompt_ids`, `chosen_ids` and `rejected_ids`.

        Returns:
            TRL's batch: `input_ids` and `completion_mask`, (2 * pairs, answer + 1), where
            each answer follows the last token of its prompt; `attention_mask`,
            (prompts, row), from which TRL counts tokens. And `shared` for the backbone:
            `input_ids`, `position_ids` and `segments`, (prompts, row), and `places`,
            (2 * pairs, answer + 1), the index of each of TRL's tokens in the flattened
            rows.
        """
        import torch

        sequences = [
            (tuple(example["prompt_ids"]), tuple(example[side]))
            for side in ("chosen_ids", "rejected_ids")
            for example in examples
        ]
        # Unique answers of each prompt, in order.
        answers: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
        for prompt, answer in sequences:
            answers.setdefault(prompt, {})[answer] = None
        rows = [pack(prompt, list(known)) for prompt, known in answers.items()]
        width = max(len(row.ids) for row in rows)
        # Index in the flattened rows (prompts * width) of each token of an answer.
        places = {
            (prompt, answer): [number * width + place for place in part]
            for number, (prompt, row) in enumerate(zip(answers, rows, strict=True))
            for answer, part in zip(answers[prompt], row.parts, strict=True)
        }
        segments = pad_rows([row.segments for row in rows], PADDING)
        return {
            "input_ids": pad_rows([[p[-1], *a] for p, a in sequences], self.pad),
            "completion_mask": pad_rows([[0] + [1] * len(a) for _, a in sequences], 0),
            "attention_mask": (segments != PADDING).to(torch.long),
            "shared": {
                "input_ids": pad_rows([row.ids for row in rows], self.pad),
                "position_ids": pad_rows([row.positions for row in rows], 0),
                "segments": segments,
                # The last token of an answer has no hidden state, and TRL ignores this
                # one, so any index will do.
                "places": pad_rows([[*places[s], places[s][0]] for s in sequences], 0),
            },
        }


def pad_rows(rows: list[list[int]], value: int) -> torch.Tensor:
    """(rows, longest row), filled up with `value` at the ends."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
    )


def obstacle(model: PreTrainedModel) -> str | None:
    """Why prompts cannot be shared with this model; `None` if they can."""
    config = model.config
    if config._attn_implementation not in ATTENTIONS:
        return f"{config._attn_implementation} is not one of {', '.join(ATTENTIONS)}"
    return family_obstacle(config)


def family_obstacle(config: Any) -> str | None:
    """Why a config is not one of `FAMILIES` with full attention; `None` if it is."""
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is not one of {', '.join(FAMILIES)}"
    if getattr(config, "sliding_window", None) is not None:
        return "its attention has a sliding window"
    return None


def share_prefixes(model: PreTrainedModel) -> None:
    """Makes the model's backbone read the rows of `SharedPrefixCollator`.

    It reads batches of other collators as before.

    Args:
        model: The transformers model inside PEFT; adapters in its layers stay active.
    """
    from torch.nn.functional import embedding

    backbone = model.base_model
    read = backbone.forward

    @functools.wraps(read)
    def forward(*args: Any, shared: Any = None, **options: Any) -> Any:
        if shared is None:
            return read(*args, **options)
        options["input_ids"] = shared["input_ids"]  # (prompts, row)
        options["position_ids"] = shared["position_ids"]
        options["attention_mask"] = attention_mask(
            shared["segments"], backbone.config._attn_implementation
        )
        output = read(**options)  # last_hidden_state: (prompts, row, size)
        hidden = output.last_hidden_state.flatten(0, 1)  # (prompts * row, size)
        # (2 * pairs, answer + 1, size). An embedding lookup instead of indexing: the
        # backward of indexing sums in no fixed order, and a resumed training would not
        # end with the same bits.
        output.last_hidden_state = embedding(shared["places"], hidden)
        return output

    backbone.forward = forward


def attention_mask(
    segments: torch.Tensor, implementation: str
) -> torch.Tensor | BlockMask:
    """The mask in which an answer sees the prompt and itself.

    Args:
        segments: (rows, tokens), see `SharedRow`.
        implementation: One of `ATTENTIONS`.

    Returns:
        For SDPA, (rows, 1, queries, keys), true where a query sees a key; for
        FlexAttention, blocks of that mask, of which empty ones are skipped.
    """
    import torch

    rows, tokens = segments.shape
    if implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(
            _sees(segments), rows, None, tokens, tokens, device=segments.device
        )
    row = torch.arange(rows, device=segments.device)[:, None, None, None]
    token = torch.arange(tokens, device=segments.device)
    # Broadcasts (rows, 1, 1, 1), (queries, 1) and (keys,).
    return _sees(segments)(row, row, token[:, None], token)


def _sees(segments: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The mask as a function of indexes, in FlexAttention's form; they may be tensors."""

    def sees(
        row: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        # Padding sees padding: a query without any key would give NaN.
        seen = segments[row, key]
        return (key <= query) & ((seen == PROMPT) | (seen == segments[row, query]))

    return sees
