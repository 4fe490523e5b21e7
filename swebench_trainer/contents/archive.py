"""Read untrusted tar archives as streams, without unpacking them."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from typing import Any

MAX_MEMBERS = 200_000
MAX_BYTES = 5_000_000_000
"""Maximum total size of the files in an archive, including holes."""

CHUNK = 1 << 20
END = 1024
"""Number of zero bytes at the end of an archive."""


@contextlib.contextmanager
def opened(chunks: Iterator[bytes]) -> Iterator[tarfile.TarFile]:
    """Open an archive, to be read once from start to end.

    Args:
        chunks: The bytes of the archive.

    Raises:
        ValueError: The archive is damaged or truncated.
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
    """Iterate over an archive of a directory: paths below the directory, and members.

    Raises:
        ValueError: The archive has too many files or bytes.
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
        archive.members = []  # type: ignore[attr-defined]  # else tarfile keeps them all


def below(name: str) -> str:
    """Return a path without its first part, the archived directory."""
    return name.partition("/")[2]


class Stream(io.RawIOBase):
    """Chunks of bytes as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = memoryview(b"")
        self._last = b""

    def readable(self) -> bool:
        """Return true."""
        return True

    def finish(self) -> None:
        """Read to the end-of-archive marker, which a truncated archive lacks.

        Raises:
            ValueError: The marker is missing.
        """
        while self.readinto(bytearray(CHUNK)):
            pass
        if self._last != bytes(END):
            raise ValueError("the archive is truncated")

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or part of it."""
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
