"""The styles that show ranked files: BM25's ranking, or a given list.

Neither ranking knows the fix. Files are shown best first, as far as the budget allows.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from pydantic import PositiveInt

from swebench_trainer.contracts import Prompt, PromptInputs
from swebench_trainer.errors import DataError
from swebench_trainer.prompts.budget import LEAST_SHARE, Measure, compose, crop
from swebench_trainer.prompts.crops import ChooseRegions, regions_about
from swebench_trainer.prompts.excerpts import Excerpt, merge, read_source
from swebench_trainer.prompts.retrieval import RECALL_AT, RETRIEVED, Searcher
from swebench_trainer.prompts.terms import terms
from swebench_trainer.recipe.models import ContextTable, RecipePath
from swebench_trainer.store.json_files import read_entries
from swebench_trainer.types import Instance

SKIPPED = "skipped"
"""Fact of a prompt (`Prompt.facts`): the files that are not shown, each with the reason."""
NO_ROOM = "it does not fit into context_tokens"


class Bm25Table(ContextTable):
    """`[prompt]` of the `bm25` style."""

    files: PositiveInt = 10
    """Maximum number of files to show, best first, within the token budget."""


class Bm25Style:
    """The issue and the source files that BM25 ranks highest."""

    context = "bm25"

    def __init__(self, table: Bm25Table) -> None:
        self._table = table
        self._searcher = Searcher()

    def render(self, instance: Instance, material: PromptInputs) -> Prompt:
        """Show whole files where they fit, otherwise the parts about the issue.

        Raises:
            ValueError: The repository's files are unavailable, or the issue is too long.
        """
        ranked = self._searcher.rank(material.tree(), query(instance))
        count = self._table.files
        recorded = ranked[: max(count, *RECALL_AT)]
        return show_ranked(self._table, instance, material, recorded, count)


class ListedTable(ContextTable):
    """`[prompt]` of the `files` style."""

    list: RecipePath
    """Files by instance, best first: rows `{"instance_id": …, "files": […]}` (`.jsonl`), or one JSON object of lists by instance id (`.json`)."""


class ListedStyle:
    """The issue and the files that another system lists for it.

    Raises:
        DataError: The list cannot be read; the message names the line.
    """

    context = "files"

    def __init__(self, table: ListedTable) -> None:
        self._table = table
        self._files = read_lists(table.list)

    def render(self, instance: Instance, material: PromptInputs) -> Prompt:
        """Show whole files where they fit, otherwise the parts about the issue.

        Raises:
            ValueError: The list does not have the instance, the repository's files
                are unavailable, or the issue is too long.
        """
        listed = self._files.get(instance.instance_id)
        if listed is None:
            raise ValueError(f"{self._table.list.name} lists no files for it")
        return show_ranked(self._table, instance, material, listed, len(listed))


def query(instance: Instance) -> str:
    """The text to search by: everything known about an issue before it is fixed."""
    texts = (instance.problem_statement, instance.requirements, instance.interface)
    return "\n".join(texts)


def show_ranked(
    table: ContextTable,
    instance: Instance,
    material: PromptInputs,
    ranked: Sequence[str],
    count: int,
) -> Prompt:
    """A prompt with as many of the files as fit.

    Args:
        table: The recipe's `[prompt]`.
        instance: The instance with the issue.
        material: Opens the files and counts tokens.
        ranked: Paths, best first; all of them are recorded.
        count: Number of them that may be shown. Those that cannot be shown are
            skipped, with the reason.

    Raises:
        ValueError: The repository's files are unavailable, or the issue is too long.
    """
    tree = material.tree()
    files: dict[str, tuple[str, ...]] = {}
    skipped: dict[str, str] = {}
    for path in ranked[:count]:
        try:
            files[path] = read_source(tree, path).lines
        except ValueError as error:
            skipped[path] = str(error)
    wanted = frozenset(terms(query(instance)))

    @cache
    def regions(path: str) -> ChooseRegions:
        return regions_about(wanted, files[path])

    prompt = compose(table, instance, material, partial(fit_in_order, files, regions))
    skipped |= {p: NO_ROOM for p in files if p not in (prompt.shown or ())}
    facts = {RETRIEVED: list(ranked), **({SKIPPED: skipped} if skipped else {})}
    return replace(prompt, facts=facts)


def fit_in_order(
    files: Mapping[str, tuple[str, ...]],
    regions: Callable[[str], ChooseRegions],
    room: int,
    measure: Measure,
) -> list[Excerpt]:
    """Excerpts of the files, each of which may take half of the remaining room.

    A file that does not fit is cropped around the terms of the issue. If it has none of
    them, its skeleton is shown, or nothing.

    Args:
        files: Lines by path, best file first.
        regions: Chooses the regions of a file that are about the issue.
        room: Tokens.
        measure: Counts tokens.
    """
    excerpts: list[Excerpt] = []
    for number, (path, lines) in enumerate(files.items(), start=1):
        share = room if number == len(files) else room // 2
        if share < LEAST_SHARE:
            break
        if excerpt := _fit(path, lines, regions(path), share, measure):
            excerpts.append(excerpt)
            room -= measure(excerpt)
    return excerpts


def _fit(
    path: str,
    lines: tuple[str, ...],
    choose: ChooseRegions,
    share: int,
    measure: Measure,
) -> Excerpt | None:
    whole = Excerpt.whole(path, lines)
    if measure(whole) <= share:
        return whole
    if cropped := crop(path, lines, share, measure, choose):
        return cropped
    outline = Excerpt(path, lines, skeleton(path, lines))
    return outline if outline.shown and measure(outline) <= share else None


def skeleton(path: str, lines: tuple[str, ...]) -> tuple[range, ...]:
    """The class and function signatures of a Python file, without bodies.

    Returns:
        Ranges of line indexes; empty for other files and for invalid syntax.
    """
    if not path.endswith((".py", ".pyi")):
        return ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # syntax warnings about the file
            tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found = [
        range(node.lineno - 1, max(node.lineno, node.body[0].lineno - 1))
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    # Python's line numbers differ from ours if the file has form feeds.
    if any(region.stop > len(lines) for region in found):
        return ()
    return merge(found, len(lines))


def read_lists(path: Path) -> dict[str, tuple[str, ...]]:
    """The files of each instance, without repetitions.

    Raises:
        DataError: The file cannot be read, or an entry is not a list of paths.
    """
    lists: dict[str, tuple[str, ...]] = {}
    for place, key, value in read_entries(path):
        row = {"instance_id": key, "files": value} if key else value
        if not isinstance(row, dict):
            raise DataError(f"{place}: not a JSON object.")
        name, files = row.get("instance_id"), row.get("files")
        if not isinstance(name, str) or not name:
            raise DataError(f"{place}: instance_id is missing.")
        if not isinstance(files, list) or not all(isinstance(f, str) for f in files):
            raise DataError(f"{place}: files is not a list of paths.")
        if name in lists:
            raise DataError(f"{place}: duplicate list for {name}.")
        lists[name] = tuple(dict.fromkeys(f.removeprefix("./") for f in files))
    if not lists:
        raise DataError(f"{path} has no lists of files.")
    return lists
