"""Normal forms of patches, to recognize patches with the same meaning.

If the repository's files are available, the normal form of a patch is their content
after it: Python as `ast.unparse` writes it, without comments and docstrings; other files
line by line, without comments and insignificant whitespace. Otherwise it is the changed
lines. When in doubt, two patches count as different: unrecognized comments, spaces in
lines with quotes, and indentation (except in languages with braces) are kept.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePosixPath

from swebench_trainer.contracts import Tree
from swebench_trainer.patches.files import Text, read_file
from swebench_trainer.patches.lenient_diff import lines_by_file
from swebench_trainer.patches.strict_diff import FileChange, read_patch
from swebench_trainer.store.digest import digest

_BRACES = re.compile(
    r"\.(c|h|cc|cpp|hpp|cs|go|java|jsx?|kt|mjs|php|rs|scala|swift|tsx?|vue|dart)"
)
_COMMENTS = {
    "#": re.compile(r"\.(py|rb|sh|pl|r|jl|exs?|ya?ml|toml)"),
    "//": _BRACES,
    "--": re.compile(r"\.(lua|sql)"),
}
"""Start of a line comment, with the suffixes of its files."""

_QUOTES = "\"'`"
_INSIGNIFICANT = re.compile(r"(?<!\w) | (?!\w)")
"""A space that does not separate two words."""

_TAB = 4
"""Spaces per tab."""

_LARGEST = 2_000_000
"""Maximum number of characters of a file that is parsed."""


def form_in(tree: Tree, patch: str) -> str | None:
    """Digest of the files that a patch changes; `None` if it does not apply."""
    try:
        changes = read_patch(patch)
        files = [item for change in changes for item in _files(change, tree)]
    except ValueError:  # not a patch, or an unsafe path
        return None
    if None in files:
        return None
    return digest(sorted(filter(None, files)))


def changed_lines(patch: str) -> tuple[str, ...]:
    """Added and removed lines by file, without comments and insignificant whitespace."""
    found: list[str] = []
    empty = True
    for file in lines_by_file(patch):
        paths = sorted(file.paths)
        suffix = PurePosixPath(paths[-1]).suffix.lower()
        bare = ((line[0], _bare(line[1:], suffix)) for line in file.lines)
        lines = [sign + code for sign, code in bare if code]
        found += [" ".join(paths), *lines]
        empty = empty and not lines
    return () if empty else tuple(found)


def _files(change: FileChange, tree: Tree) -> Iterator[tuple[str, str] | None]:
    """Path and content of each changed file; `None` if the change does not apply."""
    if change.special:
        yield None
        return
    old = read_file(tree, change.old) if change.old else None
    if change.old and old is None:
        yield None
        return
    before = old.text if old else Text((), newline=True)
    after = _changed(before, change)
    if after is None:
        yield None
        return
    if change.old and change.old != change.new:
        yield change.old, "gone"
    if change.new:
        form = _form(change.new, after)
        if change.old != change.new or form != _form(change.new, before):
            yield change.new, form


def _changed(text: Text, change: FileChange) -> Text | None:
    """The file after the change; `None` unless each hunk fits at its line number."""
    lines = list(text.lines)
    for hunk in sorted(change.hunks, key=lambda hunk: hunk.start, reverse=True):
        if not hunk.fits(text):
            return None
        lines[hunk.start : hunk.end] = hunk.new.lines
    return Text(tuple(lines), newline=True)


def _form(path: str, text: Text) -> str:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".py" and (form := _python("\n".join([*text.lines, ""]))) is not None:
        return form
    return "\n".join(filter(None, (_bare(line, suffix) for line in text.lines)))


def _python(source: str) -> str | None:
    """The code without comments, docstrings and layout; `None` if it does not parse."""
    source = source.replace("\r\n", "\n")
    if len(source) > _LARGEST or "\r" in source:  # Python counts it as a line end
        return None
    try:
        forms = [_statement(part) for part in _statements(source)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return "\n".join(filter(None, forms))


def _statements(source: str) -> Iterator[str]:
    """The statements of a module, each with all of its lines."""
    lines = source.split("\n")
    for node in _parsed(source).body:
        decorators = getattr(node, "decorator_list", ())
        first = min(part.lineno for part in (node, *decorators))
        yield "\n".join(lines[first - 1 : node.end_lineno])


@lru_cache(maxsize=8192)  # candidates leave most of a file unchanged
def _statement(source: str) -> str:
    return ast.unparse(_WithoutDocstrings().visit(_parsed(source)))


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the code being parsed
        return ast.parse(source)


class _WithoutDocstrings(ast.NodeTransformer):
    """Removes strings that are statements, such as docstrings."""

    def visit(self, node: ast.AST) -> ast.AST:
        """Visits only nodes with bodies, which expressions do not have."""
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, name, None)
            if isinstance(inner, list):
                kept = [self.visit(item) for item in inner if not _is_text(item)]
                empty = name == "body" and not kept and not isinstance(node, ast.Module)
                filler = [ast.Pass()] if empty else []
                setattr(node, name, kept or filler)
        return node


def _is_text(node: ast.AST) -> bool:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


@lru_cache(maxsize=65536)
def _bare(line: str, suffix: str) -> str:
    """A line without insignificant whitespace and trailing comment."""
    mark = next((m for m, files in _COMMENTS.items() if files.fullmatch(suffix)), "")
    stripped = line.strip()
    if mark == "//" and stripped.startswith("/*") and stripped.endswith("*/"):
        return ""
    code = _without_comment(line, mark).rstrip().expandtabs(_TAB)
    words = code.lstrip()
    indentation = "" if _BRACES.fullmatch(suffix) else code[: len(code) - len(words)]
    if not words or any(quote in words for quote in _QUOTES):
        return indentation + words if words else ""
    return indentation + _INSIGNIFICANT.sub("", " ".join(words.split()))


def _without_comment(line: str, mark: str) -> str:
    if not mark or mark not in line:
        return line
    quote = ""
    escaped = False
    for at, char in enumerate(line):
        if quote:
            closes = char == quote and not escaped
            escaped = char == "\\" and not escaped
            quote = "" if closes else quote
        elif char in _QUOTES:
            quote = char
        elif line[:at][-1:].strip() == "" and line.startswith(mark, at):
            return line[:at]  # unlike `${name#prefix}`, where a word continues
    return line
