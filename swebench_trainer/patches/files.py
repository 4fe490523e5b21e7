"""A repository's files as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swebench_trainer.contents.paths import UNSAFE
from swebench_trainer.contracts import Tree

_REGULAR = ("100644", "100755")
_LINK = "120000"


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
        """Splits at newlines only, unlike `str.splitlines`."""
        if not content:
            return cls()
        lines = content.split("\n")
        if lines[-1]:
            return cls(tuple(lines), newline=False)
        return cls(tuple(lines[:-1]))

    @classmethod
    def decoded(cls, content: bytes) -> Text:
        """Bytes that are not UTF-8 become surrogate escapes."""
        return cls.of(content.decode("utf-8", "surrogateescape"))

    def encoded(self) -> bytes:
        """Undoes `decoded`."""
        return str(self).encode("utf-8", "surrogateescape")

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


@dataclass(frozen=True)
class ChangedFiles:
    """Contents of the files that a patch names, by path.

    Attributes:
        old: Existing files before.
        new: Files after.
    """

    old: Mapping[str, bytes]
    new: Mapping[str, bytes]


def encoded(files: Mapping[str, File]) -> dict[str, bytes]:
    """The contents of files as bytes."""
    return {path: file.text.encoded() for path, file in files.items()}


def read_file(tree: Tree, path: str) -> File | None:
    """Reads a text file of a tree; `None` if the path does not exist.

    Raises:
        ValueError: The path is unsafe, or is not a text file.
    """
    mode = tree.mode(path)
    if not mode:
        return None
    if mode == _LINK:
        raise ValueError(UNSAFE)
    content = tree.read(path) if mode in _REGULAR else None
    if content is None:
        raise ValueError(f"{path} is not a file")
    if b"\0" in content:
        raise ValueError(f"{path} is a binary file")
    return File(Text.decoded(content), mode)
