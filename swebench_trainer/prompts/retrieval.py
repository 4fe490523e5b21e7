"""BM25 over the source files of a repository, with indexes cached between runs.

A document is the path and the content of a source file. The cache key of an index is the
list of its files with their git object ids, so any copy of a commit hits the same index.
A file that many commits share is read once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from swebench_trainer.contracts import Tree
from swebench_trainer.patches.strict_diff import SUBMODULE, read_patch
from swebench_trainer.prompts.source_files import is_source
from swebench_trainer.prompts.terms import names, terms, terms_of
from swebench_trainer.store.cache import mark_used, partial_path, user_cache, write_lock

if TYPE_CHECKING:
    from bm25s import BM25

RETRIEVED = "retrieved"
"""Fact of a prompt (`Prompt.facts`): the ranked paths, best first."""
RECALL_AT = (1, 5, 10)
"""Cutoffs of the recall figures."""

_VERSION = 1
"""Version of documents and terms; a new version rebuilds every index."""

_LARGEST = 1 << 20
"""Bytes of a document; larger files are data or generated."""

_KEPT = 64 << 20
"""Terms kept in memory, 4 bytes each."""


@dataclass
class Recall:
    """Recall of gold files over instances, at each cutoff of `RECALL_AT`.

    Attributes:
        instances: Number of instances whose gold patch touches an existing file.
        all_found: Number of them with every such file within the cutoff.
        shares: Sum over them of the share of such files within the cutoff.
    """

    instances: int = 0
    all_found: list[int] = field(default_factory=lambda: [0] * len(RECALL_AT))
    shares: list[float] = field(default_factory=lambda: [0.0] * len(RECALL_AT))

    def add(self, patch: str, ranked: Sequence[str]) -> None:
        """Count an instance by its gold patch and the ranked files, best first."""
        try:
            gold = {
                change.old
                for change in read_patch(patch)
                if change.old and change.special != SUBMODULE
            }
        except ValueError:  # a patch that cannot be trained on
            return
        if not gold:
            return
        self.instances += 1
        for n, cutoff in enumerate(RECALL_AT):
            found = gold.intersection(ranked[:cutoff])
            self.all_found[n] += found == gold
            self.shares[n] += len(found) / len(gold)

    def percent(self) -> tuple[list[float], list[float]]:
        """Percent of the instances with all files found, and mean percent of files found."""
        total = max(1, self.instances)
        return (
            [100 * count / total for count in self.all_found],
            [100 * share / total for share in self.shares],
        )


class Searcher:
    """Ranks the source files of a repository for a query."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: dict[str, tuple[int, ...]] = {}
        self._documents: dict[tuple[str, str], array[int]] = {}
        self._kept = 0

    def rank(self, tree: Tree, text: str) -> list[str]:
        """Paths of the source files that share terms with `text`, best first.

        Files with equal scores are in path order.
        """
        files = [
            (path, _object_id(tree, path)) for path in filter(is_source, tree.paths())
        ]
        if not files:
            return []
        place = user_cache("bm25", f"{_key(files)}.zip")
        mark_used(place)
        index = _load(place, len(files))
        if index is None:
            index = self._build(tree, files)
            _save(index, place)
        scores = index.get_scores_from_ids(index.get_tokens_ids([*terms(text)]))
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
        documents = [self._document(tree, path, blob) for path, blob in files]
        # Renumber the terms of all repositories for this index.
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

    def _document(self, tree: Tree, path: str, blob: str) -> array[int]:
        """Term ids of a path and its content."""
        if (path, blob) not in self._documents:
            content = _content(tree, path)
            text = path
            if b"\0" not in content and len(content) <= _LARGEST:
                text += "\n" + content.decode("utf-8", "replace")
            found = array("I", chain.from_iterable(map(self._term_ids, names(text))))
            self._documents[path, blob] = found
            self._kept += len(found)
        return self._documents[path, blob]

    def _term_ids(self, name: str) -> tuple[int, ...]:
        """Term ids of a name, cached because most names repeat."""
        if name not in self._names:
            ids = self._numbers
            words = terms_of(name)
            self._names[name] = tuple(ids.setdefault(w, len(ids)) for w in words)
        return self._names[name]


def _content(tree: Tree, path: str) -> bytes:
    try:
        return tree.read(path) or b""
    except ValueError:  # too large to read
        return b""


def _object_id(tree: Tree, path: str) -> str:
    """Git's object id of a file, without reading it if the tree has the id."""
    if hasattr(tree, "blob"):
        return str(tree.blob(path))
    content = _content(tree, path)
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _key(files: Iterable[tuple[str, str]]) -> str:
    named = json.dumps([_VERSION, *files])
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _load(place: Path, documents: int) -> BM25 | None:
    """A cached index; `None` if it is missing or damaged."""
    from bm25s import BM25

    try:
        with tempfile.TemporaryDirectory() as folder:
            shutil.unpack_archive(place, folder, "zip")
            index = BM25.load(folder)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None
    return index if index.scores["num_docs"] == documents else None


def _save(index: BM25, place: Path) -> None:
    """Cache an index. If it cannot be written, the next run rebuilds it."""
    try:
        with write_lock(place):
            folder = partial_path(place)
            index.save(folder / "index")
            packed = shutil.make_archive(
                str(folder / "packed"), "zip", folder / "index"
            )
            Path(packed).replace(place)
    except OSError:
        return
