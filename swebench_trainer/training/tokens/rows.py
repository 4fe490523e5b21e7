"""Rows of token ids, and the audit of what is trained on.

Rows that are too long are left out and counted; an answer is never cut, because
half a patch teaches the model to stop in the middle.
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
"""Label of a token that is read and not learned."""

ANSWER = "completion_mask"
"""Column of rows whose prompts are learned at a weight of their own: 1 in the answer."""


@dataclass(frozen=True)
class Encoded:
    """One example in tokens.

    Attributes:
        key: Instance id, for the audit.
        answers: The completion of an SFT row, or `chosen` and `rejected`.
        altered: Whether the tokenizer cannot write an answer byte for byte.
        good: Of an answer that stands alone, whether it is to be learned.
    """

    key: str
    prompt: list[int]
    answers: tuple[list[int], ...]
    altered: bool = False
    good: bool = True

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the longest answer."""
        return len(self.prompt) + max(map(len, self.answers))

    def as_sft(self, *, prompt_loss: float = 0) -> dict[str, list[int]]:
        """The row that TRL's SFT collator takes.

        Args:
            prompt_loss: What a token of the prompt weighs. Where that is neither 0
                nor 1, the row tells prompt from answer, for `weighing`.
        """
        (answer,) = self.answers
        # The first token follows nothing; of packed rows it would follow another row.
        first = 1 if prompt_loss else len(self.prompt)
        labels = [IGNORED] * first + self.prompt[first:] + answer
        row = {"input_ids": self.prompt + answer, "labels": labels}
        if prompt_loss in (0, 1):
            return row
        return row | {ANSWER: [0] * len(self.prompt) + [1] * len(answer)}

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
    """Encodes supervised rows, or reads what they were encoded to before."""
    texts = [(row.instance_id, row.prompt, row.completion) for row in rows]
    return _encode(tokenizer, texts)


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Iterable[Pair]
) -> list[Encoded]:
    """Encodes preferences, or reads what they were encoded to before.

    Raises:
        StageError: An answer stands alone.
    """
    texts = []
    for p in pairs:
        if p.chosen is None or p.rejected is None:
            raise StageError(
                f"The strategy {p.strategy!r} gives answers that stand alone, and this loss compares two.",
                hint='Set [dpo] loss = "kto", or choose another [pairs] use.',
            )
        texts.append((p.instance_id, p.prompt, p.chosen, p.rejected))
    return _encode(tokenizer, texts)


def encode_answers(
    tokenizer: PreTrainedTokenizerBase, pairs: Iterable[Pair]
) -> list[Encoded]:
    """Encodes each answer of the preferences by itself, one in several pairs once."""
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
    """Encodes rows of a key, a prompt and the answers to it."""
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
    """The ids of each prompt and its answers, and whether an answer is altered."""
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
        "fully_masked": [row.key for row in kept if not all(row.answers)],
        "trained_tokens": sum(len(a) for row in kept for a in row.answers),
        "eos_trained": all(a[-1] == end for row in kept for a in row.answers),
    }
