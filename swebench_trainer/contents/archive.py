"""A tar archive that nobody has vetted, as it comes: nothing of it is unpacked."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from typing import Any

MAX_MEMBERS = 200_000
MAX_BYTES = 5_000_000_000
"""Size of all files of an archive together; holes in them count."""

CHUNK = 1 << 20
END = 1024
"""So many zeros end an archive."""


@contextlib.contextmanager
def opened(chunks: Iterator[bytes]) -> Iterator[tarfile.TarFile]:
    """Opens an archive, to be read once from its begin to its end.

    Args:
        chunks: The archive, piece by piece.

    Raises:
        ValueError: It is damaged or torn.
    """
    stream = Stream(chunks)
    file = io.BufferedReader(stream, CHUNK)
    try:
        with tarfile.open(
            fileobj=file, mode="r|", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            yield archive
        stream.finish()
    except tarfile.TarError as error:
        raise ValueError(f"the archive is damaged: {error}") from error


def members(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """What is in an archive of a directory, with its path below that directory.

    Raises:
        ValueError: It is too much.
    """
    size = 0
    for number, member in enumerate(archive):
        size += member.size
        if number >= MAX_MEMBERS:
            raise ValueError(f"more than {MAX_MEMBERS} files")
        if size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES / 1e9:.0f} GB")
        if path := below(member.name):
            yield path, member
        archive.members = []  # type: ignore[attr-defined]  # or it would keep them all


def below(name: str) -> str:
    """A path without its first part, which is the directory that was asked for."""
    return name.partition("/")[2]


class Stream(io.RawIOBase):
    """Pieces of bytes as a file to read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = memoryview(b"")
        self._last = b""

    def readable(self) -> bool:
        """It is, and that is all."""
        return True

    def finish(self) -> None:
        """Reads to the end, which an archive that was torn between two files lacks.

        Raises:
            ValueError: It is not there.
        """
        while self.readinto(bytearray(CHUNK)):
            pass
        if self._last != bytes(END):
            raise ValueError("it has no end")

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, or a part of it."""
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
            self._last = (self._last + chunk)[-END:]
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
