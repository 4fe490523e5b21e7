"""Python test functions, parsed as far as a test patch shows them."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from swebench_trainer.grading.counter.test_files import Hunk, Line, TestFile

Function = ast.FunctionDef | ast.AsyncFunctionDef
_DEF = re.compile(r"(?P<indent>[ \t]*)(?:async +)?def +(?P<name>\w+) *\(")
_CLASS = re.compile(r"(?P<indent>[ \t]*)class +(?P<name>\w+)")
_HEADING = re.compile(
    r"(?P<indent>[ \t]*)(?:(?P<kind>class)|(?:async +)?def) +(?P<name>\w+)"
)
_CLAUSE = re.compile(r"\s*(?:except|finally)\b")
_TRIES = 60
"""Number of ends that are tried for a function that is not visible as a whole."""


@dataclass(frozen=True)
class VisibleFunction:
    """A function, or the visible part of one.

    Attributes:
        owner: Its class, empty for a function of the module, `None` if not known.
        node: Positions in it are those of the file, except for `shift`.
        shift: What to add to a line number of the node.
        lines: The lines of the file by number.
        fixed: Numbers of lines that cannot be changed.
        whole: Whether its first line is visible.
    """

    path: str
    owner: str | None
    node: Function
    shift: int
    lines: dict[int, Line]
    fixed: frozenset[int]
    whole: bool = True

    @property
    def name(self) -> str:
        """Its name."""
        return self.node.name

    @property
    def key(self) -> str:
        """Identifies it in the instance."""
        return f"{self.path}:{self.node.lineno + self.shift}"

    @property
    def indent(self) -> str:
        """What stands before its first line, if that is visible."""
        return self.source[self.node.lineno][: self.node.col_offset]

    @cached_property
    def source(self) -> dict[int, str]:
        """Its lines, numbered as in the node."""
        return {n - self.shift: line.text for n, line in self.lines.items()}

    def can_change(self, number: int) -> bool:
        """Whether a line of the file can be replaced."""
        return number in self.lines and number not in self.fixed


def visible_functions(
    file: TestFile, wanted: Callable[[str], bool]
) -> Iterator[VisibleFunction]:
    """Yield the functions with wanted names, in the order of the file."""
    if file.complete:
        (hunk,) = file.hunks
        tree = parsed([line.text for line in hunk.lines])
        if tree is not None:
            lines = {line.number: line for line in hunk.lines}
            for owner, node in _definitions(tree.body, ""):
                if wanted(node.name):
                    yield VisibleFunction(file.path, owner, node, 0, lines, hunk.fixed)
            return
    for hunk in file.hunks:
        yield from _in_hunk(file.path, hunk, wanted)


def parsed(lines: Sequence[str]) -> ast.Module | None:
    """The syntax tree of some lines; `None` if they are not valid Python."""
    if any("\r" in line[:-1] or "\f" in line for line in lines):
        return None  # Python counts other lines than git
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes such as "\d"
            return ast.parse("\n".join(lines) + "\n")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _definitions(
    body: Sequence[ast.stmt], owner: str
) -> Iterator[tuple[str, Function]]:
    for node in body:
        if isinstance(node, Function):
            yield owner, node
        elif isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{owner}.{node.name}".lstrip("."))
        elif isinstance(node, ast.If | ast.Try):
            yield from _definitions(node.body, owner)


def _in_hunk(
    path: str, hunk: Hunk, wanted: Callable[[str], bool]
) -> Iterator[VisibleFunction]:
    texts = [line.text for line in hunk.lines]
    heading = _HEADING.match(hunk.heading)
    numbers = {line.number: line for line in hunk.lines}
    if heading and not heading["kind"] and wanted(heading["name"]):
        body = _body(texts, heading["name"])
        if body:
            part, shift = body
            shift += hunk.lines[0].number - 1
            yield VisibleFunction(
                path, None, part, shift, numbers, hunk.fixed, whole=False
            )
    for at, text in enumerate(texts):
        start = _DEF.match(text)
        if not start or not wanted(start["name"]):
            continue
        indent = len(start["indent"])
        if _is_inner(texts[:at], indent) or _is_quoted(texts[:at], texts[at:]):
            continue
        if node := _function(texts[at:], indent):
            shift = hunk.lines[at].number - 1 - (1 if indent else 0)
            owner = _owner(texts[:at], indent, heading)
            yield VisibleFunction(path, owner, node, shift, numbers, hunk.fixed)


def _is_inner(before: Sequence[str], indent: int) -> bool:
    """Whether a definition is in another function, or in a string of one."""
    for text in reversed(before):
        found = _DEF.match(text) or _CLASS.match(text)
        if found and len(found["indent"]) < indent:
            return _CLASS.match(text) is None
    return False


def _is_quoted(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether a string seems to start before a definition and to end behind it."""
    return _quotes(before) % 2 == 1 and _quotes(after) % 2 == 1


def _quotes(texts: Sequence[str]) -> int:
    return sum(text.count('"""') + text.count("'''") for text in texts)


def _owner(
    before: Sequence[str], indent: int, heading: re.Match[str] | None
) -> str | None:
    """The class of a definition, from the lines before it in its hunk."""
    if indent == 0:
        return ""
    for text in reversed(before):
        if (found := _CLASS.match(text)) and len(found["indent"]) < indent:
            return found["name"]
    return heading["name"] if heading and heading["kind"] else None


def _function(texts: Sequence[str], indent: int) -> Function | None:
    """Parse a function that starts with the first line and may be cut off."""
    header = ["if 1:"] if indent else []
    ends = [
        at
        for at, text in enumerate(texts[1:], 1)
        if text.strip() and not text.strip().startswith("#") and _indent(text) <= indent
    ]
    cuts = range(len(texts), max(1, len(texts) - _TRIES), -1)
    for end in [*ends[:_TRIES], *cuts]:
        tree = parsed([*header, *texts[:end]])
        if tree is None:
            continue
        body = tree.body[0].body if header else tree.body  # type: ignore[attr-defined]  # a function
        if len(body) == 1 and isinstance(body[0], Function):
            return body[0]
    return None


def _body(texts: Sequence[str], name: str) -> tuple[Function, int] | None:
    """Parse lines of a function whose first line is not visible.

    Returns:
        The function, and what to add to its line numbers for the number of the line.
    """
    ends = [at for at, text in enumerate(texts) if _HEADING.match(text.lstrip())]
    end = ends[0] if ends else len(texts)
    while end and texts[end - 1].strip().startswith("@"):
        end -= 1
    for start in range(min(end, 4)):
        first = texts[start]
        if not first.strip() or _indent(first) == 0:
            continue
        headers = _headers(texts[start:end], name)
        cuts = [end] if ends else range(end, max(start, end - 8), -1)
        for cut in cuts:
            tree = parsed([*headers, *texts[start:cut]])
            if tree and len(tree.body) == 1 and isinstance(tree.body[0], Function):
                return tree.body[0], start - len(headers)
    return None


def _headers(texts: Sequence[str], name: str) -> list[str]:
    """Lines that open the blocks that some lines end."""
    lows: list[tuple[int, str]] = []
    for text in texts:
        if text.strip() and (not lows or _indent(text) < lows[-1][0]):
            lows.append((_indent(text), text))
    headers = [f"async def {name}():"]
    for indent, text in reversed(lows[1:]):
        opening = "try:" if _CLAUSE.match(text) else "if 1:"
        headers.append(text[:indent] + opening)
    return headers


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(" \t"))
