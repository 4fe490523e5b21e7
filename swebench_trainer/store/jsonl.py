"""JSON files: rows are appended whole, files are replaced atomically.

A process can be killed between any two instructions, and a disk can fill up in the
middle of a row. So a row and its newline are written in one call, readers ignore a
last row without a newline, and files are replaced through a temporary file next to
them.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from swebench_trainer.errors import StageError
from swebench_trainer.types import from_row

Row = Mapping[str, Any]
T = TypeVar("T")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or quota into a `StageError` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StageError(
                f"No space left on the disk while writing {path}.",
                hint="Free some space and run the same command again to resume.",
            ) from error
        raise


def dump(row: Row) -> bytes:
    """Encode a row as one line, in ASCII so that no reader splits it at Unicode line ends."""
    return json.dumps(row, ensure_ascii=True).encode() + b"\n"


class RowWriter:
    """Appends rows to a file, each completely or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_row(path)
        self._file: BinaryIO = path.open("ab", buffering=0)

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, row: Row) -> int:
        """Append one row.

        Returns:
            The row's offset, for `row_at`.

        Raises:
            StageError: The disk is full; the row was not written.
        """
        line = dump(row)
        size = self._file.seek(0, os.SEEK_END)
        try:
            with disk_errors(self.path):
                written = self._file.write(line)
                if written != len(line):  # a raw write may be short on a full disk
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:  # also Ctrl-C: a part of a row must not stay
            self._file.truncate(size)
            raise
        return size


def _cut_torn_row(path: Path) -> None:
    """Remove a partial row that a killed writer left."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            whole, size = content.rfind(b"\n") + 1, len(content)
        if whole != size:
            file.truncate(whole)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file; a missing file has none, a partial last row is ignored.

    Raises:
        StageError: A row is damaged; the message has its line number.
    """
    return list(each_row(path))


def each_row(path: Path) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a file that may not fit in memory. See `read_rows`."""
    return (row for _, row in each_row_at(path))


def each_row_at(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Iterate over offsets and rows; `row_at` reads a row again by its offset."""
    return ((offset, row) for _, offset, row in _each_line(path))


def _each_line(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yields the place for messages, the offset, and the row of each whole line."""
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                place = f"{path}, line {number}"
                yield place, offset, _parse(line, place)
            offset += len(line)


def each_value(
    path: Path,
    kind: type[T],
    key: Callable[[T], Hashable] | None = None,
    convert: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row,
) -> Iterator[T]:
    """Iterate over the rows of a file as values of `kind`, a dataclass of `types`.

    Args:
        path: The file; a missing one has no rows.
        kind: Type of the values.
        key: What no two different values may have in common.
        convert: Changes a row before it is read.

    Raises:
        StageError: A row is damaged, or disagrees with an earlier one.
    """
    seen: dict[Hashable, tuple[str, T]] = {}
    for place, _, row in _each_line(path):
        try:
            value = from_row(kind, convert(row))
        except (KeyError, TypeError, ValueError) as error:
            raise damaged_value(place, error) from error
        if key is not None:
            earlier, other = seen.setdefault(key(value), (place, value))
            if other != value:
                raise damaged(place, f"it contradicts {earlier}")
        yield value


def row_at(path: Path, offset: int) -> dict[str, Any]:
    """Read the row at an offset."""
    with path.open("rb") as file:
        file.seek(offset)
        row: dict[str, Any] = _parse(file.readline(), f"{path}, byte {offset}")
        return row


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace a file with these rows atomically."""
    _replace(path, map(dump, rows))


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Replace a file with one indented JSON value atomically; dataclasses become objects.

    Without `sync` a power cut may lose the file: for thousands of files that can be
    computed again.
    """
    text = json.dumps(value, indent=2, default=to_jsonable_python)
    _replace(path, [text.encode() + b"\n"], sync=sync)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically: readers see either the old or the new content."""
    _replace(path, [content])


def _replace(path: Path, parts: Iterable[bytes], *, sync: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with disk_errors(path):
            with temporary.open("wb") as file:
                file.writelines(parts)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read the JSON object of a file, or `None` if the file is missing."""
    return _parse(path.read_bytes(), str(path)) if path.exists() else None


def _parse(text: bytes, where: str) -> Any:
    """Parse JSON that this program wrote, which is always an object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(where, error) from error
    if not isinstance(value, dict):
        raise damaged(where, "it is not a JSON object")
    return value


def damaged(where: str | Path, reason: object) -> StageError:
    """Build the error for a damaged file of a run."""
    return StageError(
        f"{where} is damaged: {reason}.",
        hint="Repair or remove the damaged part, or rerun the stage that wrote the file with --redo STAGE.",
    )


def damaged_value(where: str | Path, error: Exception) -> StageError:
    """Build the error for valid JSON that `from_row` refuses."""
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        column = ".".join(map(str, detail["loc"]))
        return damaged(where, f"column {column!r}: {detail['msg']}")
    if isinstance(error, KeyError):
        return damaged(where, f"column {error.args[0]!r} is missing")
    return damaged(where, error)
