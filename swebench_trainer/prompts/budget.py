"""Prompts of an issue and files, within the token budget of the recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from swebench_trainer.contracts import Prompt, PromptInputs
from swebench_trainer.errors import UnusableInstance
from swebench_trainer.prompts.crops import ChooseRegions
from swebench_trainer.prompts.excerpts import NOTE, Excerpt
from swebench_trainer.prompts.styles import INSTRUCTIONS, ask
from swebench_trainer.recipe.models import ContextTable
from swebench_trainer.store.draw import draw_key
from swebench_trainer.types import Instance

Measure = Callable[[object], int]
"""Tokens of a part of a prompt. The parts add up to about the whole."""

LEAST_SHARE = 128
"""Tokens. A file that is not needed is left out if it has less room."""

_TRIES = 6
_SAMPLE = 20_000
"""Characters of a part that are tokenized; the rest of a longer part is extrapolated."""

_LEAST_REGION = 8
"""Lines. A smaller crop would not be comprehensible."""


def compose(
    table: ContextTable,
    instance: Instance,
    material: PromptInputs,
    lay: Callable[[int, Measure], Sequence[Excerpt]],
) -> Prompt:
    """The issue, the files in an order drawn from the seed, and the answer format.

    Args:
        table: The recipe's `[prompt]`.
        instance: The instance with the issue.
        material: Counts tokens.
        lay: Chooses the excerpts to show within a number of tokens.

    Raises:
        ValueError: The issue is too long without any file, or `lay` raised it.
    """
    limit = table.context_tokens
    question = ask(instance)
    form = (INSTRUCTIONS[table.answer],) if table.instructions else ()
    frame = material.tokens("\n\n".join((question, NOTE, *form)))
    if frame > limit:
        raise UnusableInstance(
            "the issue is longer than context_tokens, even without any file",
            f"{frame} of {limit} tokens",
        )
    small = material.tokens("x")

    @cache
    def measure(part: object) -> int:
        text = str(part)
        counted = material.tokens(f"x\n\n{text[:_SAMPLE]}") - small
        return counted * len(text) // min(len(text), _SAMPLE)

    room = limit - frame
    for _ in range(_TRIES):
        excerpts = sorted(
            lay(room, measure),
            key=lambda e: draw_key(material.seed, instance.instance_id, e.path),
        )
        note = () if all(excerpt.complete for excerpt in excerpts) else (NOTE,)
        text = "\n\n".join((question, *map(str, excerpts), *note, *form))
        over = material.tokens(text) - limit
        if over <= 0:
            return Prompt(text, {e.path: e.shown for e in excerpts})
        room -= over
    raise ValueError(f"no prompt fits {limit} tokens")


def crop(
    path: str,
    lines: tuple[str, ...],
    room: int,
    measure: Measure,
    choose: ChooseRegions,
) -> Excerpt | None:
    """The regions of a file that `choose` returns for the lines that fit.

    Returns:
        `None` if even its smallest choice does not fit, or it returns nothing.
    """
    number = len(lines) * room // max(1, measure(Excerpt.whole(path, lines)))
    number = min(number, len(lines))
    for tries_left in reversed(range(_TRIES)):
        excerpt = Excerpt(path, lines, choose(number))
        cost = measure(excerpt)
        if not excerpt.shown:
            return None
        if cost <= room:
            return excerpt
        if not number:
            return None
        smaller = number * room // (cost + cost // 20 + 1)
        number = smaller if tries_left > 1 and smaller >= _LEAST_REGION else 0
    return None
