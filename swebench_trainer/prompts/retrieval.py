"""BM25 over the source files of a repository, its indexes kept from run to run.

A document is the path and the content of a source file. An index belongs to exactly
the files that it was made of, by their git object ids: it does not matter where they
were read, and a commit that was searched before is searched at once. A file that many
commits share is read once.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from swebench_trainer.contracts import Tree
from swebench_trainer.prompts.documents import is_source
from swebench_trainer.prompts.words import names, words, words_of
from swebench_trainer.store.cache import mark_used, partial_path, user_cache, write_lock

if TYPE_CHECKING:
    from bm25s import BM25

_VERSION = 1
"""Of what a document is, and of its words; another one makes every index anew."""

_LARGEST = 1 << 20
"""Bytes of a document; what is larger is data, or generated."""

_KEPT = 64 << 20
"""Words kept in memory, of 4 bytes each."""


class Searcher:
    """Finds the files of a repository that have the words of a text."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: dict[str, tuple[int, ...]] = {}
        self._documents: dict[tuple[str, str], array[int]] = {}
        self._kept = 0

    def rank(self, tree: Tree, text: str) -> list[str]:
        """Paths of the source files that share words with `text`, the best first.

        Files of equal score are in the order of their paths.
        """
        files = [
            (path, _object_id(tree, path)) for path in tree.paths() if is_source(path)
        ]
        if not files:
            return []
        place = user_cache("bm25", f"{_key(files)}.zip")
        mark_used(place)
        index = _load(place, len(files))
        if index is None:
            index = self._build(tree, files)
            _save(index, place)
        scores = index.get_scores_from_ids(index.get_tokens_ids([*words(text)]))
        order = (-scores).argsort(kind="stable")
        return [files[n][0] for n in order if scores[n] > 0]

    def _build(self, tree: Tree, files: Sequence[tuple[str, str]]) -> BM25:
        import numpy as np
        from bm25s import BM25

        if self._kept > _KEPT:
            self._documents.clear()
            self._numbers.clear()
            self._names.clear()
            self._kept = 0
        documents = [self._words(tree, path, blob) for path, blob in files]
        # The numbers of all repositories, in those of this index.
        used, numbers = np.unique(np.concatenate(documents), return_inverse=True)
        ends = np.cumsum([len(document) for document in documents])
        names = list(self._numbers)
        index = BM25()
        index.index(
            (
                [part.tolist() for part in np.split(numbers, ends[:-1])],
                {names[number]: n for n, number in enumerate(used)},
            ),
            show_progress=False,
        )
        return index

    def _words(self, tree: Tree, path: str, blob: str) -> array[int]:
        """The words of a path and of what lies there, by number."""
        if (path, blob) not in self._documents:
            content = _content(tree, path)
            text = path
            if b"\0" not in content and len(content) <= _LARGEST:
                text += "\n" + content.decode("utf-8", "replace")
            found = array("I", chain.from_iterable(map(self._numbered, names(text))))
            self._documents[path, blob] = found
            self._kept += len(found)
        return self._documents[path, blob]

    def _numbered(self, name: str) -> tuple[int, ...]:
        """The words of a name, by number; most names come again and again."""
        found = self._names.get(name)
        if found is None:
            numbers = self._numbers
            found = tuple(numbers.setdefault(w, len(numbers)) for w in words_of(name))
            self._names[name] = found
        return found


def _content(tree: Tree, path: str) -> bytes:
    try:
        return tree.read(path) or b""
    except ValueError:  # larger than anything that is read
        return b""


def _object_id(tree: Tree, path: str) -> str:
    """What git calls the content of a file; a tree that knows need not read it."""
    if hasattr(tree, "blob"):
        return str(tree.blob(path))
    content = _content(tree, path)
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _key(files: Iterable[tuple[str, str]]) -> str:
    named = json.dumps([_VERSION, *files])
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _load(place: Path, documents: int) -> BM25 | None:
    """An index of earlier; `None` if there is none, or it is damaged."""
    from bm25s import BM25

    try:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(place) as file:
            file.extractall(folder)
            index = BM25.load(folder)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return index if index.scores["num_docs"] == documents else None


def _save(index: BM25, place: Path) -> None:
    """Keeps an index. Where it cannot be written, the next run makes it again."""
    try:
        with write_lock(place):
            folder = partial_path(place)
            index.save(folder)
            files = sorted(folder.iterdir())
            packed = folder / "packed"
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
                for part in files:
                    file.write(part, part.name)
            packed.replace(place)
    except OSError:
        return
