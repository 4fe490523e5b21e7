"""Rows of token ids, and the audit of what is trained on.

Rows that are too long are left out and counted; an answer is never cut, because
half a patch teaches the model to stop in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swebench_trainer.errors import StageError
from swebench_trainer.training.encoding import (
    decode_completion,
    encode_completion,
    encode_prompt,
)
from swebench_trainer.types import Pair, SftRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that is read and not learned."""


@dataclass(frozen=True)
class Encoded:
    """One example in tokens.

    Attributes:
        key: Instance id, for the audit.
        answers: The completion of an SFT row, or `chosen` and `rejected`.
        altered: Whether the tokenizer cannot write an answer byte for byte.
    """

    key: str
    prompt: list[int]
    answers: tuple[list[int], ...]
    altered: bool = False

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the longest answer."""
        return len(self.prompt) + max(map(len, self.answers))

    def as_sft(self) -> dict[str, list[int]]:
        """The row that TRL's SFT collator takes."""
        (answer,) = self.answers
        return {
            "input_ids": self.prompt + answer,
            "labels": [IGNORED] * len(self.prompt) + answer,
        }

    def as_preference(self) -> dict[str, list[int]]:
        """The row that TRL's preference collator takes."""
        chosen, rejected = self.answers
        return {
            "prompt_ids": self.prompt,
            "chosen_ids": chosen,
            "rejected_ids": rejected,
        }


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[SftRow]
) -> list[Encoded]:
    """Encodes supervised rows."""
    return [_encode(tokenizer, r.instance_id, r.prompt, r.completion) for r in rows]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Iterable[Pair]
) -> list[Encoded]:
    """Encodes preferences."""
    return [
        _encode(tokenizer, p.instance_id, p.prompt, p.chosen, p.rejected) for p in pairs
    ]


def _encode(
    tokenizer: PreTrainedTokenizerBase, key: str, prompt: str, *answers: str
) -> Encoded:
    ids = tuple(encode_completion(tokenizer, answer) for answer in answers)
    written = tuple(decode_completion(tokenizer, answer) for answer in ids)
    return Encoded(key, encode_prompt(tokenizer, prompt), ids, written != answers)


def fit_rows(
    rows: list[Encoded], max_tokens: int, max_dropped: float, end: int
) -> tuple[list[Encoded], dict[str, Any]]:
    """Leaves out rows that are too long.

    Args:
        rows: Every row of the stage.
        max_tokens: Longest prompt plus answer.
        max_dropped: Largest share of the rows that may be left out.
        end: Id of the token that ends an answer.

    Returns:
        The rows to train on, and the audit of them.

    Raises:
        StageError: There are no rows, or too many are too long.
    """
    kept = [row for row in rows if row.length <= max_tokens]
    dropped = [row.key for row in rows if row.length > max_tokens]
    longest = max((row.length for row in rows), default=0)
    if not rows:
        raise StageError(
            "There are no rows to train on.",
            hint="stages/prepare/dropped.jsonl and stages/pairs/stats.json have the reasons.",
        )
    if not kept or len(dropped) / len(rows) > max_dropped:
        raise StageError(
            f"{len(dropped)} of {len(rows)} rows are longer than {max_tokens} tokens (the longest has {longest}).",
            hint="Raise [prompt] max_tokens, choose a prompt style with less context, or allow it with max_dropped.",
        )
    return kept, {
        "rows": len(rows),
        "kept": len(kept),
        "dropped": dropped,
        "longest": longest,
        "longest_kept": max(row.length for row in kept),
        "altered": [row.key for row in kept if row.altered],
        "trained_tokens": sum(len(a) for row in kept for a in row.answers),
        "eos_trained": all(a[-1] == end for row in kept for a in row.answers),
    }
