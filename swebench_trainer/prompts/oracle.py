"""The style that shows the files of the gold patch, and distractors."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from pathlib import PurePosixPath

from pydantic import NonNegativeInt

from swebench_trainer.contracts import Prompt, PromptInputs, Tree
from swebench_trainer.errors import UnusableInstance
from swebench_trainer.patches.strict_diff import SUBMODULE, read_patch
from swebench_trainer.prompts.budget import LEAST_SHARE, Measure, compose, crop
from swebench_trainer.prompts.crops import regions_around
from swebench_trainer.prompts.edits import gold_edits
from swebench_trainer.prompts.excerpts import Excerpt, merge, read_source, read_text
from swebench_trainer.prompts.source_files import is_test
from swebench_trainer.recipe.models import ContextTable
from swebench_trainer.store.draw import draw_key
from swebench_trainer.types import Instance

Lines = Mapping[str, tuple[str, ...]]
"""Lines of files by path."""


class OracleTable(ContextTable):
    """`[prompt]` of the `oracle` style."""

    distractors: NonNegativeInt = 1
    """Number of additional files from nearby folders, so that the model does not learn to edit every file it sees."""


class OracleStyle:
    """The issue and the files of the gold patch; not leaderboard-valid.

    It shows the model where to look, among distractors.
    """

    context = "oracle"

    def __init__(self, table: OracleTable) -> None:
        self._table = table

    def render(self, instance: Instance, material: PromptInputs) -> Prompt:
        """Show whole files where they fit, otherwise regions that contain the edits.

        Raises:
            ValueError: The repository's files are unavailable, a file is missing or not
                UTF-8 text, the patch does not apply, or its lines exceed the budget.
        """
        tree = material.tree()
        paths = [
            change.old
            for change in read_patch(instance.patch)
            if change.old and change.special != SUBMODULE
        ]
        gold = {path: read_text(tree, path).lines for path in paths}
        context = self._table.context_of(instance.instance_id)
        edits = gold_edits(self._table.answer, instance, tree, context)
        near = self._distractors(instance, material, tree, gold)
        others = dict(islice(near, self._table.distractors if gold else 0))

        def lay(room: int, measure: Measure) -> Sequence[Excerpt]:
            def rng(path: str) -> random.Random:
                return random.Random(  # noqa: S311 - not a secret
                    draw_key(material.seed, instance.instance_id, path, "regions")
                )

            return list(_lay({**gold, **others}, edits, room, measure, rng))

        return compose(self._table, instance, material, lay)

    def _distractors(
        self,
        instance: Instance,
        material: PromptInputs,
        tree: Tree,
        gold: Collection[str],
    ) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Files like the gold patch's, nearest in the tree first."""

        def rank(path: str) -> tuple[int, str]:
            drawn = draw_key(material.seed, instance.instance_id, path)
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
    """Number of leading folders that two paths share."""
    pairs = zip(path.split("/")[:-1], other.split("/")[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _lay(
    files: Lines,
    edits: Mapping[str, Sequence[range]],
    room: int,
    measure: Measure,
    rng: Callable[[str], random.Random],
) -> Iterator[Excerpt]:
    """Show each file in its share of the room: whole, cropped, or not at all."""
    whole = {path: Excerpt.whole(path, lines) for path, lines in files.items()}
    least = {
        path: Excerpt(path, files[path], merge(needed, len(files[path])))
        for path, needed in edits.items()
    }
    costs = {path: measure(excerpt) for path, excerpt in whole.items()}
    floors = {path: min(measure(part), costs[path]) for path, part in least.items()}
    if (needed := sum(floors.values())) > room:
        raise UnusableInstance(
            "the lines that the gold patch edits do not fit into context_tokens",
            f"{needed} of {room} tokens",
        )
    level = _level(costs, floors, room)
    for path, lines in files.items():
        share = max(level, floors.get(path, 0))

        def regions(number: int, path: str = path) -> tuple[range, ...]:
            needed = edits.get(path, ())
            return regions_around(needed, len(files[path]), number, rng(path))

        if costs[path] <= share:
            yield whole[path]
        elif path in edits or share >= LEAST_SHARE:
            excerpt = crop(path, lines, share, measure, regions) or least.get(path)
            if excerpt:
                yield excerpt


def _level(costs: Mapping[str, int], floors: Mapping[str, int], room: int) -> int:
    """The largest share that is affordable for every file that needs it."""

    def spent(level: int) -> int:
        return sum(min(c, max(floors.get(p, 0), level)) for p, c in costs.items())

    return bisect_right(range(room + 1), room, key=spent) - 1
