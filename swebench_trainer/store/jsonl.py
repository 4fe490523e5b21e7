"""Rows and values on disk: appended whole, replaced atomically, never torn.

A process can be killed between any two instructions, and a disk can fill up in
the middle of a row. Rows are therefore written with their newline in one call,
a row without its newline does not count, and files that are replaced go through
a temporary file beside them.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from swebench_trainer.errors import StageError

Row = Mapping[str, Any]


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or quota into a `StageError` that says where."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StageError(
                f"No space left on the disk while writing {path}.",
                hint="Free some space and run the same command again; it goes on where it stopped.",
            ) from error
        raise


def dump(row: Row) -> bytes:
    """One line of JSON. ASCII, so that no reader splits it at odd line ends."""
    return json.dumps(row, ensure_ascii=True).encode() + b"\n"


class RowWriter:
    """Appends rows to a file; a row is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_row(path)
        self._file: BinaryIO = path.open("ab", buffering=0)

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, row: Row) -> None:
        """Appends one row.

        Raises:
            StageError: The disk is full; the file is left without the row.
        """
        self.append(row)

    def append(self, row: Row) -> int:
        """Appends one row, and says where it is.

        Returns:
            Its offset, for `row_at`.

        Raises:
            StageError: The disk is full; the file is left without the row.
        """
        line = dump(row)
        size = self._file.seek(0, os.SEEK_END)
        try:
            with disk_errors(self.path):
                written = self._file.write(line)
                if written != len(line):  # a raw write may be short on a full disk
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:
            self._file.truncate(size)
            raise
        return size


def _cut_torn_row(path: Path) -> None:
    """Removes what a killed writer left after the last newline."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            whole, size = content.rfind(b"\n") + 1, len(content)
        if whole != size:
            file.truncate(whole)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of ours; none if it is not there, a torn last row is left out.

    Raises:
        StageError: A row is damaged; the message names the line.
    """
    return list(each_row(path))


def each_row(path: Path) -> Iterator[dict[str, Any]]:
    """What `read_rows` gives, one by one: a file of verdicts can be large."""
    return (row for _, row in each_row_at(path))


def each_row_at(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row behind its offset, for `row_at`: to come back to some of many rows."""
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield offset, _parse(line, f"{path}, line {number}")
            offset += len(line)


def row_at(path: Path, offset: int) -> dict[str, Any]:
    """The row that begins at an offset of a file of ours."""
    with path.open("rb") as file:
        file.seek(offset)
        row: dict[str, Any] = _parse(file.readline(), f"{path}, byte {offset}")
        return row


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replaces a file by these rows, atomically."""
    _replace(path, map(dump, rows))


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Replaces a file by one indented JSON value, atomically.

    Without `sync` a power cut may still take it: for files by the thousand, which
    can be made again.
    """
    content = json.dumps(value, indent=2, ensure_ascii=True).encode() + b"\n"
    _replace(path, [content], sync=sync)


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file atomically: readers see the old content or the new."""
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
    """The JSON value of a file of ours, or `None` if it is not there."""
    return _parse(path.read_bytes(), str(path)) if path.exists() else None


def _parse(text: bytes, where: str) -> Any:
    """A JSON value of ours, which only somebody else can have damaged."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise damaged(where, error) from error


def damaged(where: str | Path, reason: object) -> StageError:
    """Build the error for a damaged file of a run."""
    return StageError(
        f"{where} is damaged: {reason}.",
        hint="Fix or remove it, or rerun its stage with --redo STAGE.",
    )
