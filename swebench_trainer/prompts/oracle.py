"""The style that shows the files which the gold patch touches, among others."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from pathlib import PurePosixPath

from pydantic import NonNegativeInt

from swebench_trainer.contracts import Prompt, PromptInputs, Tree
from swebench_trainer.patches.strict_diff import read_patch
from swebench_trainer.prompts.crops import around
from swebench_trainer.prompts.documents import is_test
from swebench_trainer.prompts.edits import gold_edits
from swebench_trainer.prompts.pages import Measure, compose, crop
from swebench_trainer.prompts.views import View, merge, read_source, read_text
from swebench_trainer.recipe.models import ContextTable
from swebench_trainer.store.digest import digest
from swebench_trainer.types import Instance

Lines = Mapping[str, tuple[str, ...]]
"""Files by path."""

_LEAST_SHARE = 128
"""Tokens below which a file that is not needed is not worth its place."""


class OracleTable(ContextTable):
    """`[prompt]` of the `oracle` style."""

    distractors: NonNegativeInt = 1
    """Files beside those of the gold patch, from near them, so that a model does not learn that every file it sees is to be edited."""


class OracleStyle:
    """The issue with the files that the gold patch touches, and some that it does not.

    It tells the model where to look, so its results are no leaderboard results.
    """

    context = "oracle"

    def __init__(self, table: OracleTable) -> None:
        self._table = table

    def render(self, instance: Instance, material: PromptInputs) -> Prompt:
        """Whole files where there is room, else regions with the edits in them.

        Raises:
            ValueError: The repository's files cannot be had, one is missing or not
                UTF-8 text, the patch does not fit them, or the budget its lines.
        """
        tree = material.tree()
        paths = [change.old for change in read_patch(instance.patch) if change.old]
        gold = {path: read_text(tree, path).lines for path in paths}
        edits = gold_edits(
            self._table.answer,
            instance,
            tree,
            self._table.context_of(instance.instance_id),
        )
        near = self._distractors(instance, material, tree, gold)
        others = dict(islice(near, self._table.distractors if gold else 0))

        def lay(room: int, measure: Measure) -> Sequence[View]:
            def draw(path: str) -> random.Random:
                # Not for secrets: the same for everybody.
                return random.Random(  # noqa: S311
                    digest([material.seed, instance.instance_id, path, "regions"])
                )

            return list(_lay({**gold, **others}, edits, room, measure, draw))

        return compose(self._table, instance, material, lay)

    def _distractors(
        self,
        instance: Instance,
        material: PromptInputs,
        tree: Tree,
        gold: Collection[str],
    ) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Files like those of the gold patch, the nearest in the tree first."""

        def rank(path: str) -> tuple[int, str]:
            drawn = digest([material.seed, instance.instance_id, path])
            return (-max(_shared(path, other) for other in gold), drawn)

        suffixes = {_suffix(path) for path in gold}
        near = {p for p in tree.paths() if _suffix(p) in suffixes and not is_test(p)}
        for path in sorted(near.difference(gold), key=rank):
            try:
                yield path, read_source(tree, path).lines
            except ValueError:
                continue


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix


def _shared(path: str, other: str) -> int:
    """How many folders two paths share."""
    pairs = zip(path.split("/")[:-1], other.split("/")[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _lay(
    files: Lines,
    edits: Mapping[str, Sequence[range]],
    room: int,
    measure: Measure,
    draw: Callable[[str], random.Random],
) -> Iterator[View]:
    """Shows each file in its share of the room: whole, cropped, or not at all."""
    whole = {path: View.whole(path, lines) for path, lines in files.items()}
    least = {
        path: View(path, files[path], merge(needed, len(files[path])))
        for path, needed in edits.items()
    }
    costs = {path: measure(view) for path, view in whole.items()}
    floors = {path: min(measure(view), costs[path]) for path, view in least.items()}
    if (needed := sum(floors.values())) > room:
        raise ValueError(
            "the lines that the gold patch edits are longer than context_tokens leaves "
            f"room for ({needed} tokens of {room})"
        )
    level = _level(costs, floors, room)
    for path, lines in files.items():
        share = max(level, floors.get(path, 0))

        def regions(
            number: int, path: str = path, lines: tuple[str, ...] = lines
        ) -> tuple[range, ...]:
            return around(edits.get(path, ()), len(lines), number, draw(path))

        if costs[path] <= share:
            yield whole[path]
        elif path in edits:
            yield crop(path, lines, share, measure, regions) or least[path]
        elif share >= _LEAST_SHARE and (
            view := crop(path, lines, share, measure, regions)
        ):
            yield view


def _level(costs: Mapping[str, int], floors: Mapping[str, int], room: int) -> int:
    """The largest share that every file which wants it can have."""

    def spent(level: int) -> int:
        return sum(min(c, max(floors.get(p, 0), level)) for p, c in costs.items())

    return bisect_right(range(room + 1), room, key=spent) - 1
