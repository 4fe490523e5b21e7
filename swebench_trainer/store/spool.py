"""A sequence on disk, for data sets that do not fit in memory."""

from __future__ import annotations

import os
import pickle
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import eq
from pathlib import Path
from typing import Generic, TypeVar, overload

from swebench_trainer.store.jsonl import disk_errors

T = TypeVar("T")

_IN_MEMORY = 16 << 20
"""Size in bytes above which a spool moves from memory to a file."""


def _folder() -> Path:
    """Return the directory for large temporary files: /tmp is often in memory."""
    large = Path("/var/tmp")  # noqa: S108 - for a file without a name
    if "TMPDIR" not in os.environ and os.access(large, os.W_OK):
        return large
    return Path(tempfile.gettempdir())


class _File:
    """A temporary file that is closed with the last reference to it."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(_folder()))  # noqa: SIM115 - `finalize` closes it
        weakref.finalize(self, self._file.close)

    def write(self, start: int, content: bytes) -> None:
        self._file.seek(start)
        self._file.write(content)

    def read(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)


class Spool(Sequence[T], Generic[T]):
    """Values of one type, appended once and read in any order any number of times.

    The values are in an unnamed temporary file, which is freed with its last reader.

    Args:
        values: The first values.
    """

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._file = _File()
        self._starts = array("Q")
        self._sizes = array("Q")
        self._end = 0
        for value in values:
            self.append(value)

    def append(self, value: T) -> None:
        """Add a value at the end; not for results of `where`.

        Raises:
            StageError: The disk is full.
        """
        content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        with disk_errors(_folder()):
            self._file.write(self._end, content)
        self._starts.append(self._end)
        self._sizes.append(len(content))
        self._end += len(content)

    def where(self, wanted: Callable[[int], bool]) -> Spool[T]:
        """Select values by position; the result shares the file."""
        part: Spool[T] = Spool.__new__(Spool)
        part._file, part._end = self._file, self._end
        kept = [n for n in range(len(self)) if wanted(n)]
        part._starts = array("Q", (self._starts[n] for n in kept))
        part._sizes = array("Q", (self._sizes[n] for n in kept))
        return part

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[T]:
        return map(self._read, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self._read(n) for n in range(len(self))[index]]
        return self._read(range(len(self))[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # it grows

    def _read(self, number: int) -> T:
        content = self._file.read(self._starts[number], self._sizes[number])
        return pickle.loads(content)  # type: ignore[no-any-return]  # noqa: S301 - what `append` wrote
