"""Rows of token ids, and the audit of the rows to train on.

Rows that are too long are dropped and counted. Answers are never truncated, because half
a patch would teach the model to stop in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from swebench_trainer.errors import StageError
from swebench_trainer.training.tokens.encoding import (
    decode_completion,
    encode_completions,
    encode_prompts,
)
from swebench_trainer.training.tokens.token_cache import Ids, cached_ids
from swebench_trainer.types import Pair, SftRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token without a loss."""

ANSWER = "completion_mask"
"""Column of rows with a weighted loss on the prompt: 1 in the answer, 0 in the prompt."""


@dataclass(frozen=True)
class Encoded:
    """One example as token ids.

    Attributes:
        key: Instance id, for the audit.
        prompt: Token ids of the prompt.
        answers: Token ids of the completion of an SFT row, or of `chosen` and `rejected`.
        altered: Whether the tokenizer cannot reproduce an answer byte for byte.
        good: Label of a single answer in KTO.
    """

    key: str
    prompt: list[int]
    answers: tuple[list[int], ...]
    altered: bool = False
    good: bool = True

    @property
    def length(self) -> int:
        """Tokens of the prompt plus the longest answer."""
        return len(self.prompt) + max(map(len, self.answers))

    def as_sft(self, *, prompt_loss: float = 0) -> dict[str, list[int]]:
        """A row for TRL's SFT collator.

        Args:
            prompt_loss: Weight of prompt tokens. Values other than 0 and 1 add the
                column `ANSWER`, for `prompt_loss.weighted`.
        """
        (answer,) = self.answers
        # Nothing predicts the first token; in packed rows another row would.
        first = 1 if prompt_loss else len(self.prompt)
        labels = [IGNORED] * first + self.prompt[first:] + answer
        row = {"input_ids": self.prompt + answer, "labels": labels}
        if prompt_loss in (0, 1):
            return row
        return row | {ANSWER: [0] * len(self.prompt) + [1] * len(answer)}

    def as_preference(self) -> dict[str, list[int]]:
        """A row for TRL's preference collator."""
        chosen, rejected = self.answers
        return {
            "prompt_ids": self.prompt,
            "chosen_ids": chosen,
            "rejected_ids": rejected,
        }


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[SftRow]
) -> list[Encoded]:
    """Encodes supervised rows, or reads their ids from the cache."""
    texts = [(row.instance_id, row.prompt, row.completion) for row in rows]
    return _encode(tokenizer, texts)


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Iterable[Pair]
) -> list[Encoded]:
    """Encodes pairs, or reads their ids from the cache.

    Raises:
        StageError: A pair has only one answer.
    """
    texts = []
    for p in pairs:
        if p.chosen is None or p.rejected is None:
            raise StageError(
                f"The strategy {p.strategy!r} produces pairs with only one answer, and this loss needs two.",
                hint='Set [dpo] loss = "kto", or choose another strategy with [pairs] use.',
            )
        texts.append((p.instance_id, p.prompt, p.chosen, p.rejected))
    return _encode(tokenizer, texts)


def encode_answers(
    tokenizer: PreTrainedTokenizerBase, pairs: Iterable[Pair]
) -> list[Encoded]:
    """Encodes each answer of the pairs on its own; an answer in several pairs once."""
    answers = dict.fromkeys(
        (pair.instance_id, pair.prompt, answer, good)
        for pair in pairs
        for answer, good in ((pair.chosen, True), (pair.rejected, False))
        if answer is not None
    )
    rows = _encode(tokenizer, [answer[:3] for answer in answers])
    return [
        replace(row, good=good) for row, (*_, good) in zip(rows, answers, strict=True)
    ]


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[tuple[str, str, *tuple[str, ...]]],
) -> list[Encoded]:
    """Encodes rows of key, prompt and answers."""
    texts = [row[1:] for row in rows]
    ids, altered = cached_ids(tokenizer, texts, lambda: _encode_texts(tokenizer, texts))
    left = iter(ids)
    return [
        Encoded(key, next(left), tuple(islice(left, len(answers))), alters)
        for (key, _, *answers), alters in zip(rows, altered, strict=True)
    ]


def _encode_texts(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[tuple[str, ...]]
) -> Ids:
    """The ids of each prompt and its answers, and whether an answer was altered."""
    prompts = encode_prompts(tokenizer, [prompt for prompt, *_ in rows])
    texts = [answer for _, *answers in rows for answer in answers]
    answers = encode_completions(tokenizer, texts)
    alters = [
        decode_completion(tokenizer, ids) != text
        for ids, text in zip(answers, texts, strict=True)
    ]
    sequences, altered, done = [], [], 0
    for prompt, row in zip(prompts, rows, strict=True):
        mine = slice(done, done := done + len(row) - 1)
        sequences += [prompt, *answers[mine]]
        altered.append(any(alters[mine]))
    return sequences, altered


def fit_rows(
    rows: list[Encoded], max_tokens: int, max_dropped: float, end: int
) -> tuple[list[Encoded], dict[str, Any]]:
    """Drops rows that are too long.

    Args:
        rows: All rows of the stage.
        max_tokens: Maximum tokens of prompt plus answer.
        max_dropped: Maximum share of rows to drop.
        end: Id of the token that ends an answer.

    Returns:
        The rows to train on, and their audit.

    Raises:
        StageError: No rows are left, or too many are too long.
    """
    kept = [row for row in rows if row.length <= max_tokens]
    dropped = [row.key for row in rows if row.length > max_tokens]
    longest = max((row.length for row in rows), default=0)
    if not rows:
        raise StageError(
            "No rows to train on.",
            hint="See stages/prepare/dropped.jsonl and stages/pairs/stats.json for the reasons.",
        )
    if not kept or len(dropped) / len(rows) > max_dropped:
        raise StageError(
            f"{len(dropped)} of {len(rows)} rows are longer than {max_tokens} tokens (the longest has {longest}).",
            hint="Raise [prompt] max_tokens, choose a prompt style with less context, or raise max_dropped.",
        )
    return kept, {
        "rows": len(rows),
        "kept": len(kept),
        "dropped": dropped,
        "longest": longest,
        "longest_kept": max(row.length for row in kept),
        "altered": [row.key for row in kept if row.altered],
        "fully_masked": [row.key for row in kept if not all(row.answers)],
        "trained_tokens": sum(len(a) for row in kept for a in row.answers),
        "eos_trained": all(a[-1] == end for row in kept for a in row.answers),
    }
