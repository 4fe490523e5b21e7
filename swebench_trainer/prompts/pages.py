"""A prompt of an issue and files, no longer than the recipe allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from swebench_trainer.contracts import Prompt, PromptInputs
from swebench_trainer.prompts.crops import Choose
from swebench_trainer.prompts.styles import INSTRUCTIONS, ask
from swebench_trainer.prompts.views import NOTE, View
from swebench_trainer.recipe.models import ContextTable
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Instance

Measure = Callable[[object], int]
"""Tokens of a part of a prompt; those of parts add up to about those of the whole."""

_TRIES = 6
_SAMPLE = 20_000
"""Characters of a part that are counted; of a longer one the rest is taken to be alike."""

_LEAST_REGION = 8
"""Lines below which a crop shows nothing that could be understood."""


def compose(
    table: ContextTable,
    instance: Instance,
    material: PromptInputs,
    lay: Callable[[int, Measure], Sequence[View]],
) -> Prompt:
    """The issue, the files in an order drawn from the seed, and the answer's form.

    Args:
        table: The recipe's `[prompt]`.
        instance: Whose issue it is.
        material: Counts the tokens.
        lay: Chooses what to show in so many tokens.

    Raises:
        ValueError: The issue alone is too long, or what `lay` raises.
    """
    limit = table.context_tokens
    question = ask(instance)
    form = (INSTRUCTIONS[table.answer],) if table.instructions else ()
    frame = material.tokens("\n\n".join((question, NOTE, *form)))
    if frame > limit:
        raise ValueError(
            f"the issue alone is longer than context_tokens ({frame} tokens of {limit})"
        )
    small = material.tokens("x")

    @cache
    def measure(part: object) -> int:
        text = str(part)
        counted = material.tokens(f"x\n\n{text[:_SAMPLE]}") - small
        return counted * len(text) // min(len(text), _SAMPLE)

    room = limit - frame
    for _ in range(_TRIES):
        views = sorted(
            lay(room, measure),
            key=lambda view: digest([material.seed, instance.instance_id, view.path]),
        )
        note = () if all(view.complete for view in views) else (NOTE,)
        text = "\n\n".join((question, *map(str, views), *note, *form))
        over = material.tokens(text) - limit
        if over <= 0:
            return Prompt(text, {view.path: view.shown for view in views})
        room -= over
    raise ValueError(f"no prompt of {limit} tokens could be made")


def crop(
    path: str,
    lines: tuple[str, ...],
    room: int,
    measure: Measure,
    choose: Choose,
) -> View | None:
    """The regions of a file that `choose` gives for as many lines as there is room for.

    Returns:
        `None` if there is no room for the least that it gives, or it gives nothing.
    """
    number = len(lines) * room // max(1, measure(View.whole(path, lines)))
    number = min(number, len(lines))
    for tries_left in reversed(range(_TRIES)):
        view = View(path, lines, choose(number))
        cost = measure(view)
        if not view.shown:
            return None
        if cost <= room:
            return view
        if not number:
            return None
        smaller = number * room // (cost + cost // 20 + 1)
        number = smaller if tries_left > 1 and smaller >= _LEAST_REGION else 0
    return None
