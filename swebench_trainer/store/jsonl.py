"""Rows and values on disk: appended whole, replaced atomically, never torn.

A process can be killed between any two instructions, and a disk can fill up in
the middle of a row. Rows are therefore written with their newline in one call,
a row without its newline does not count, and files that are replaced go through
a temporary file beside them.
"""

from __future__ import annotations

import errno
import json
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


def _cut_torn_row(path: Path) -> None:
    """Removes what a killed writer left after the last newline."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            file.truncate(whole)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of ours; none if it is not there, a torn last row is left out.

    Raises:
        StageError: A row is damaged; the message names the line.
    """
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    return [_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, start=1)]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replaces a file by these rows, atomically."""
    write_bytes(path, b"".join(map(dump, rows)))


def write_json(path: Path, value: Any) -> None:
    """Replaces a file by one indented JSON value, atomically."""
    write_bytes(path, json.dumps(value, indent=2, ensure_ascii=True).encode() + b"\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file atomically: readers see the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with disk_errors(path):
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
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
        raise StageError(
            f"{where} is damaged: {error}.",
            hint="Mend or remove it, or do its stage anew with --redo STAGE.",
        ) from error
