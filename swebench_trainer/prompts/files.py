"""A repository's files as text, reached by paths that nobody has vetted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

UNSAFE = "unsafe path"
"""Reason given for every path that could leave the repository."""

_MAX_PATH_BYTES = 1024


@dataclass(frozen=True)
class Text:
    r"""Text as lines without their `\n`; every other byte is kept, `\r` too.

    Attributes:
        newline: Whether the last line ends with a newline.
    """

    lines: tuple[str, ...] = ()
    newline: bool = True

    @classmethod
    def of(cls, content: str) -> Text:
        """Splits at newlines and nowhere else (`str.splitlines` would)."""
        if not content:
            return cls()
        lines = content.split("\n")
        if lines[-1]:
            return cls(tuple(lines), newline=False)
        return cls(tuple(lines[:-1]))

    def __str__(self) -> str:
        end = "\n" if self.lines and self.newline else ""
        return "\n".join(self.lines) + end


@dataclass(frozen=True)
class File:
    """A regular file.

    Attributes:
        text: Its content; bytes that are not UTF-8 are surrogate escapes.
        mode: Its mode in git, `100644` or `100755`.
    """

    text: Text
    mode: str = "100644"


def check_path(path: str) -> None:
    """Accepts paths that stay in the repository and out of its `.git`.

    Raises:
        ValueError: The path is absolute, has `..` or empty parts, names `.git`,
            has control characters or is too long for a file system.
    """
    parts = path.split("/")
    if (
        any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
        or not path.replace(" ", "_").isprintable()
        or len(path.encode("utf-8")) > _MAX_PATH_BYTES
    ):
        raise ValueError(UNSAFE)


def locate(root: str | Path, path: str) -> Path | None:
    """Where `path` lies in the snapshot at `root`; `None` when nothing is there.

    No part of the path may be a symbolic link, so what is found lies in `root`.

    Raises:
        ValueError: The path is unsafe.
    """
    check_path(path)
    here = Path(root)
    try:
        for part in path.split("/"):
            here /= part
            if stat.S_ISLNK(here.lstat().st_mode):
                raise ValueError(UNSAFE)
    except FileNotFoundError:
        return None
    except OSError as error:  # a file where a directory should be, a name too long
        raise ValueError(UNSAFE) from error
    return here


def read_file(root: str | Path, path: str) -> File | None:
    """Reads a file of the snapshot at `root`; `None` when there is none.

    Raises:
        ValueError: The path is unsafe, or names something else than a text file.
    """
    place = locate(root, path)
    if place is None:
        return None
    mode = place.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a file")
    content = place.read_bytes()
    if b"\0" in content:
        raise ValueError(f"{path} is a binary file")
    return File(
        Text.of(content.decode("utf-8", "surrogateescape")),
        "100755" if mode & stat.S_IXUSR else "100644",
    )


class Directory:
    """A `Tree` that lies on disk; links are not followed."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)
        self._paths: list[str] | None = None

    def read(self, path: str) -> bytes | None:
        """See `Tree.read`."""
        place = locate(self._root, path)
        if place is None or not stat.S_ISREG(place.lstat().st_mode):
            return None
        return place.read_bytes()

    def paths(self) -> Sequence[str]:
        """See `Tree.paths`."""
        if self._paths is None:
            self._paths = sorted(self._walk())
        return self._paths

    def _walk(self) -> Iterator[str]:
        for folder, names, files in os.walk(self._root):
            names[:] = [name for name in names if name.lower() != ".git"]
            for name in files:
                place = Path(folder, name)
                if stat.S_ISREG(place.lstat().st_mode):
                    yield place.relative_to(self._root).as_posix()
