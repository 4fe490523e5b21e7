"""Facts about a patch that are known before a sandbox runs; none of them is a verdict."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from swebench_trainer.answers.diffs import touched
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.lenient_diff import scan
from swebench_trainer.patches.strict_diff import applied, read_patch
from swebench_trainer.types import Candidate, StaticChecks

_LARGEST = 2_000_000
"""Bytes of the largest file that is parsed."""


@dataclass(frozen=True)
class CheckCounts:
    """How many candidates have which result in their static checks.

    Attributes:
        checked: Candidates whose patch was checked.
        refused: Those whose patch a strict `git apply` refuses.
        unparsable: Those with a Python file that no longer parses.
    """

    checked: int = 0
    refused: int = 0
    unparsable: int = 0


def static_checks(patch: str, tree: Tree) -> StaticChecks:
    """Checks a patch against the files it changes.

    Files that did not parse before are left out: they are written for another version
    of Python. Nothing is known of a patch with an unsafe path, binary content, or
    text that cannot be encoded.
    """
    try:
        old = touched(scan(patch.split("\n")).sections, tree)
        new = applied(patch, old)
        came_from = {change.new: change.old for change in read_patch(patch)}
    except ValueError:
        return StaticChecks()
    if new is None:
        return StaticChecks(applies=False)
    unparsable = []
    for path, content in sorted(new.items()):
        before = old.get(came_from.get(path) or path, b"")
        broken = parses(path, content) is False and parses(path, before) is not False
        if content != before and broken:
            unparsable.append(path)
    return StaticChecks(applies=True, unparsable=tuple(unparsable))


def check_counts(candidates: Iterable[Candidate]) -> CheckCounts:
    """Counts the static checks of candidates."""
    checks = [candidate.checks for candidate in candidates]
    return CheckCounts(
        checked=sum(check.applies is not None for check in checks),
        refused=sum(check.applies is False for check in checks),
        unparsable=sum(bool(check.unparsable) for check in checks),
    )


def parses(path: str, content: bytes) -> bool | None:
    """Whether a Python file parses; `None` for other files and very large ones."""
    if not path.endswith(".py") or len(content) > _LARGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the model's code, not ours
            ast.parse(content)
    except (SyntaxError, ValueError):  # ValueError: a NUL byte
        return False
    except (RecursionError, MemoryError):  # nested too deeply for the parser
        return None
    return True
