"""What can be said of a patch before a sandbox is paid for; none of it is a verdict."""

from __future__ import annotations

import ast
import importlib
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from swebench_trainer.answers.diffs import touched
from swebench_trainer.answers.lint import new_errors
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.lenient_diff import scan
from swebench_trainer.patches.strict_diff import applied, read_patch
from swebench_trainer.types import Candidate

APPLIES = "applies"
REFUSED = "does not apply"
_UNREADABLE = "does not parse"

_GRAMMARS = {
    ".c": "tree_sitter_c.language",
    ".cpp": "tree_sitter_cpp.language",
    ".go": "tree_sitter_go.language",
    ".java": "tree_sitter_java.language",
    ".js": "tree_sitter_javascript.language",
    ".jsx": "tree_sitter_javascript.language",
    ".php": "tree_sitter_php.language_php",
    ".rb": "tree_sitter_ruby.language",
    ".rs": "tree_sitter_rust.language",
    ".ts": "tree_sitter_typescript.language_typescript",
    ".tsx": "tree_sitter_typescript.language_tsx",
}
"""Which function of which package gives the grammar; a file counts if that is installed."""

_LARGEST = 2_000_000
"""Bytes of a file that is still parsed."""


def look(patch: str, tree: Tree) -> tuple[str, ...]:
    """Looks at a patch on the files that it is about.

    Returns:
        `does not apply` where a strict `git apply` refuses it (the harness is less
        strict), else `applies`, `does not parse: <path>` for each file that the patch
        makes unreadable, and for each that it breaks otherwise the error, such as
        `undefined name 'x': <path>`. Files that could not be read before are left out:
        they are of another language, or another version. Empty if nothing can be said.
    """
    try:
        old = touched(scan(patch.split("\n")).sections, tree)
        new = applied(patch, old)
        came_from = {change.new: change.old for change in read_patch(patch)}
    except ValueError:  # an unsafe path, a binary patch, text that cannot be written
        return ()
    if new is None:
        return (REFUSED,)
    faults: list[str] = []
    for path, content in sorted(new.items()):
        before = old.get(came_from.get(path) or path, b"")
        if content != before:
            faults += _faults(path, before, content)
    return (APPLIES, *faults)


def tally(candidates: Iterable[Candidate]) -> dict[str, int]:
    """How many candidates were looked at, and how many have which fault, if any has.

    Returns:
        Counts by `looked at`, `does not apply`, `does not parse` and `new errors`; a
        candidate may count in several.
    """
    counts: Counter[str] = Counter()
    for candidate in candidates:
        kinds = {check.split(":")[0] for check in candidate.checks}
        known = kinds & {REFUSED, _UNREADABLE}
        others = kinds - known - {APPLIES}
        counts.update(["looked at"] if kinds else [])
        counts.update(known)
        counts.update(["new errors"] if others else [])
    return dict(counts)


def _faults(path: str, old: bytes, new: bytes) -> list[str]:
    """What the patch breaks in a file that it changes."""
    before, after = parses(path, old), parses(path, new)
    if after is False:
        return [] if before is False else [f"{_UNREADABLE}: {path}"]
    if after and before and path.endswith(".py"):
        return [f"{error}: {path}" for error in new_errors(old, new)]
    return []


def parses(path: str, content: bytes) -> bool | None:
    """Whether a file can be read in its language; `None` when nobody here knows it."""
    suffix = PurePosixPath(path).suffix
    if len(content) > _LARGEST:
        return None
    if suffix == ".py":
        return _parses_as_python(content)
    return _parses_as(_GRAMMARS[suffix], content) if suffix in _GRAMMARS else None


def _parses_as_python(content: bytes) -> bool | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code, not ours
            ast.parse(content)
    except (SyntaxError, ValueError):  # ValueError: a NUL byte
        return False
    except (RecursionError, MemoryError):  # too deeply nested for this parser
        return None
    return True


def _parses_as(grammar: str, content: bytes) -> bool | None:
    package, function = grammar.split(".")
    try:
        sitter = importlib.import_module("tree_sitter")
        language = getattr(importlib.import_module(package), function)()
    except ImportError:
        return None
    root = sitter.Parser(sitter.Language(language)).parse(content).root_node
    return not root.has_error
