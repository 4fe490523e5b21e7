"""A repository's files as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass
class ChangedFiles:
    """The files that a patch or an answer names.

    Attributes:
        old: Existing files before, by path.
        new: Files after, by path.
        repairs: Names of the repairs needed to tell, in order of discovery.
    """

    old: dict[str, File] = field(default_factory=dict)
    new: dict[str, File] = field(default_factory=dict)
    repairs: list[str] = field(default_factory=list)


def find_lines(lines: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Indexes of the lines where `wanted` starts, at most the first two."""
    # One string search is fast, and newlines on both sides keep it to whole lines.
    hay = "\n".join(("", *lines, ""))
    needle = "\n".join(("", *wanted, ""))
    first = hay.find(needle)
    second = hay.find(needle, first + 1) if first >= 0 else -1
    return [hay.count("\n", 0, at) for at in (first, second) if at >= 0]


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
