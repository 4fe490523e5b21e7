"""The style that shows the files which another system lists for each instance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import Prompt, PromptInputs
from swebench_trainer.errors import DataError
from swebench_trainer.prompts.chosen import query, show_chosen
from swebench_trainer.recipe.models import ContextTable, RecipePath
from swebench_trainer.types import Instance


class ListedTable(ContextTable):
    """`[prompt]` of the `files` style."""

    list: RecipePath
    """Files by instance, the best first: rows `{"instance_id": …, "files": […]}` (`.jsonl`), or one JSON object of lists by instance id (`.json`)."""


class ListedStyle:
    """The issue with the files that a list has for it.

    Raises:
        DataError: The list cannot be read; the message names the line.
    """

    context = "files"

    def __init__(self, table: ListedTable) -> None:
        self._table = table
        self._files = read_lists(table.list)

    def render(self, instance: Instance, material: PromptInputs) -> Prompt:
        """Whole files where there is room, else what is about the issue in them.

        Raises:
            ValueError: The list does not have the instance, the repository's files
                cannot be had, or the issue is too long.
        """
        listed = self._files.get(instance.instance_id)
        if listed is None:
            raise ValueError(f"{self._table.list.name} lists no files for it")
        return show_chosen(
            self._table, instance, material, listed, len(listed), query(instance)
        )


def read_lists(path: Path) -> dict[str, tuple[str, ...]]:
    """The files of each instance, each named once.

    Raises:
        DataError: The file cannot be read, or something in it is no list of paths.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(f"The list of files {path} cannot be read: {why}.") from error
    entries = _object(path, text) if path.suffix == ".json" else _rows(path, text)
    lists: dict[str, tuple[str, ...]] = {}
    for place, name, files in entries:
        if not isinstance(name, str) or not name:
            raise DataError(f"{place}: no instance_id.")
        if not isinstance(files, list) or not all(isinstance(f, str) for f in files):
            raise DataError(f"{place}: files is no list of paths.")
        if name in lists:
            raise DataError(f"{place}: a second list for {name}.")
        lists[name] = tuple(dict.fromkeys(f.removeprefix("./") for f in files))
    return lists


def _rows(path: Path, text: str) -> Iterator[tuple[str, Any, Any]]:
    # Not splitlines(): JSON strings may hold separators such as U+2028 as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            row = _parse(line, place)
            if not isinstance(row, dict):
                raise DataError(f"{place}: not a JSON object.")
            yield place, row.get("instance_id"), row.get("files")


def _object(path: Path, text: str) -> Iterator[tuple[str, Any, Any]]:
    value = _parse(text, str(path))
    if not isinstance(value, dict):
        raise DataError(f"{path} is no JSON object of lists by instance id.")
    for name, files in value.items():
        yield f"{path}, {name!r}", name, files


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"{place}, line {error.lineno}" if error.lineno > 1 else place
        raise DataError(f"{at}: no JSON ({error.msg}).") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: JSON that cannot be read ({error}).") from error
