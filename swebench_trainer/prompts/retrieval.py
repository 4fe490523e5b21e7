"""BM25 over the source files of a repository, its index kept from run to run.

A document is the path and the content of a source file. An index belongs to exactly
the files that it was made of, by their git object ids, so that it does not matter
where they were read; the index of a commit that somebody has asked about before is
read from the user's cache, and a file that many commits share is read once.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from swebench_trainer.contracts import Tree
from swebench_trainer.prompts.words import words

if TYPE_CHECKING:
    pass

_VERSION = 1
"""Of what a document is, and of its words; another one makes every index anew."""

_LARGEST = 1 << 20
"""Bytes of a document; what is larger is data or generated."""

_KEPT = 64 << 20
"""Words kept in memory, over all files; 4 bytes each."""


class Documents:
    """The words of files, each read once as long as there is memory for them."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}
        self._words: dict[tuple[str, str], array[int]] = {}
        self._kept = 0

    def words(self, tree: Tree, path: str, blob: str) -> array[int]:
        """The words of a path and of what lies there, by number."""
        if (path, blob) not in self._words:
            if self._kept > _KEPT:
                self.__init__()  # type: ignore[misc]
            content = tree.read(path) or b""
            text = (
                ""
                if b"\0" in content or len(content) > _LARGEST
                else content.decode("utf-8", "replace")
            )
            numbers = self.vocabulary
            found = (
                numbers.setdefault(w, len(numbers)) for w in words(f"{path}\n{text}")
            )
            self._words[path, blob] = array("I", found)
            self._kept += len(self._words[path, blob])
        return self._words[path, blob]
