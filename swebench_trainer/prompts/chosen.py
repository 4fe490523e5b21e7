"""Showing files that somebody has chosen without knowing the fix, the best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from swebench_trainer.contracts import Prompt, PromptInputs
from swebench_trainer.prompts.crops import Choose, about
from swebench_trainer.prompts.pages import Measure, compose, crop
from swebench_trainer.prompts.skeleton import skeleton
from swebench_trainer.prompts.views import View, read_source
from swebench_trainer.prompts.words import words
from swebench_trainer.recipe.models import ContextTable
from swebench_trainer.types import Instance

NO_ROOM = "there is no room for it in context_tokens"

_LEAST_SHARE = 128
"""Tokens below which no file is worth its place."""


def query(instance: Instance) -> str:
    """What is known of an issue before it is fixed, as words to search by."""
    return "\n".join(
        (instance.problem_statement, instance.requirements, instance.interface)
    )


def show_chosen(
    table: ContextTable,
    instance: Instance,
    material: PromptInputs,
    ranked: Sequence[str],
    count: int,
    text: str,
) -> Prompt:
    """A prompt with the files, as far as there is room.

    Args:
        table: The recipe's `[prompt]`.
        instance: Whose issue it is.
        material: Opens the files and counts.
        ranked: Paths, the best first, all of which are recorded.
        count: How many of them may be shown; what cannot be is skipped, with the reason.
        text: What a crop is to be about.

    Raises:
        ValueError: The repository's files cannot be had, or the issue is too long.
    """
    tree = material.tree()
    files: dict[str, tuple[str, ...]] = {}
    skipped: dict[str, str] = {}
    for path in ranked[:count]:
        try:
            files[path] = read_source(tree, path).lines
        except ValueError as error:
            skipped[path] = str(error)
    asked = frozenset(words(text))

    @cache
    def regions(path: str) -> Choose:
        return about(asked, files[path])

    prompt = compose(
        table,
        instance,
        material,
        lambda room, measure: lay_in_order(files, regions, room, measure),
    )
    skipped |= {p: NO_ROOM for p in files if p not in (prompt.shown or ())}
    facts = {"retrieved": list(ranked), **({"skipped": skipped} if skipped else {})}
    return replace(prompt, facts=facts)


def lay_in_order(
    files: Mapping[str, tuple[str, ...]],
    regions: Callable[[str], Choose],
    room: int,
    measure: Measure,
) -> list[View]:
    """Views of the files, of which each may take half of the room that is left.

    A file that does not fit is cropped around the words that are asked for; without
    any, its skeleton is shown, or nothing.

    Args:
        files: Lines by path, the best file first.
        regions: Chooses what of a file is about the issue.
        room: Tokens.
        measure: Counts them.
    """
    views: list[View] = []
    for number, (path, lines) in enumerate(files.items(), start=1):
        share = room if number == len(files) else room // 2
        if share < _LEAST_SHARE:
            break
        if view := _fit(path, lines, regions(path), share, measure):
            views.append(view)
            room -= measure(view)
    return views


def _fit(
    path: str, lines: tuple[str, ...], choose: Choose, share: int, measure: Measure
) -> View | None:
    whole = View.whole(path, lines)
    if measure(whole) <= share:
        return whole
    if cropped := crop(path, lines, share, measure, choose):
        return cropped
    outline = View(path, lines, skeleton(path, lines))
    return outline if outline.shown and measure(outline) <= share else None
