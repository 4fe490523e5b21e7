"""What the collator gives the model, held against what it was given.

The rows are counted before they are collated; whatever cuts an answer, drops its end
or trains a prompt behind that would not be seen in these numbers. So the tokens that
carry a label are compared with the answers, once, before the first step.
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
    """Collates the longest rows, which are cut first if any are, and looks at them.

    Args:
        collate: The trainer's collator.
        examples: The trainer's rows.
        rows: What they were made from, in the same order.
        micro_batch: Rows that are collated at once.
        prompt_loss: Whether the prompts are to be trained too.

    Returns:
        For the audit: `cut`, how many tokens of the answers are not trained, and
        `collated`, of how many rows that was looked up.

    Raises:
        StageError: The tokens that are trained are not those that should be.
    """
    longest = sorted(range(len(rows)), key=lambda n: rows[n].length)[-micro_batch:]
    answers = zip(*(rows[n].answers for n in longest), strict=True)
    wanted = [
        token
        for side in answers
        for n, answer in zip(longest, side, strict=True)
        for token in (*(rows[n].prompt[1:] if prompt_loss else ()), *answer)
    ]
    trained = _trained(collate([examples[n] for n in longest]))
    if trained != wanted:
        raise StageError(
            f"The collator gives {len(trained)} trained tokens where the rows have {len(wanted)}, or others: an answer is cut, its end is not trained, or a prompt is that should not be.",
            hint="This is a fault of the versions of trl and transformers that are installed; see pyproject.toml for those that are tested.",
        )
    return {"cut": len(wanted) - len(trained), "collated": len(longest)}


def _trained(batch: Mapping[str, Any]) -> list[int]:
    """The tokens that have a label, sequence by sequence."""
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
