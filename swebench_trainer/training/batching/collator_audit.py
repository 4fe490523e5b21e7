"""Compares the tokens that a collator marks as trained with the rows it was given.

The audit counts rows before they are collated, so it would not show a collator that
truncates an answer, drops its end token, or trains on a prompt. Hence one comparison of
labeled tokens with answers, before the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swebench_trainer.errors import StageError
from swebench_trainer.training.tokens.rows import IGNORED, Encoded


def audit_collator(
    collate: Callable[[list[Any]], Mapping[str, Any]],
    examples: Sequence[Any],
    rows: Sequence[Encoded],
    micro_batch: int,
    *,
    prompt_loss: bool = False,
) -> dict[str, int]:
    """Collates the longest rows, the first to be truncated, and checks the result.

    Args:
        collate: The trainer's collator.
        examples: The trainer's rows.
        rows: The rows that they were made from, in the same order.
        micro_batch: Rows to collate at once.
        prompt_loss: Whether prompts are trained as well.

    Returns:
        For the audit: `cut`, the number of answer tokens that are not trained, and
        `collated`, the number of rows that were checked.

    Raises:
        StageError: The trained tokens differ from those of the rows.
    """
    longest = sorted(range(len(rows)), key=lambda n: rows[n].length)[-micro_batch:]
    answers = zip(*(rows[n].answers for n in longest), strict=True)
    wanted = [
        token
        for side in answers
        for n, answer in zip(longest, side, strict=True)
        for token in (rows[n].prompt[1:] + answer if prompt_loss else answer)
    ]
    trained = _trained(collate([examples[n] for n in longest]))
    if trained != wanted:
        raise StageError(
            f"The collator's trained tokens ({len(trained)}) differ from those of the rows ({len(wanted)}): an answer is truncated, its end token is not trained, or a prompt is.",
            hint="The installed versions of trl and transformers do not work together; pyproject.toml lists the tested ones.",
        )
    return {"cut": len(wanted) - len(trained), "collated": len(longest)}


def _trained(batch: Mapping[str, Any]) -> list[int]:
    """The tokens with a label, sequence by sequence; empty if labels are other tokens."""
    ids = batch["input_ids"]
    mask = (
        batch["labels"] != IGNORED
        if "labels" in batch
        else batch["completion_mask"] > 0
    )
    labels = batch.get("labels", ids)
    if bool((labels[mask] != ids[mask]).any()):
        return []
    return [int(token) for token in ids[mask]]
