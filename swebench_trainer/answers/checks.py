"""Facts about patches that are known without running them; verdicts ignore them."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from swebench_trainer.answers.errors import NothingChangesError
from swebench_trainer.contracts import Tree
from swebench_trainer.patches.files import ChangedFiles, File
from swebench_trainer.patches.lenient_diff import named_files, scan
from swebench_trainer.patches.strict_diff import apply_strictly, read_patch
from swebench_trainer.types import Candidate, StaticChecks

_LARGEST = 2_000_000
"""Bytes of the largest file that is parsed."""


@dataclass(frozen=True)
class CheckCounts:
    """Number of candidates by result of their static checks.

    Attributes:
        checked: Candidates whose patch was checked.
        refused: Candidates whose patch a strict `git apply` refuses.
        unparsable: Candidates with a Python file that no longer parses.
    """

    checked: int = 0
    refused: int = 0
    unparsable: int = 0


def static_checks(patch: str, tree: Tree) -> StaticChecks:
    """Checks a patch against the files that it changes.

    The result is empty for a patch that is not well-formed, has binary content or an
    unsafe path, or cannot be encoded.
    """
    found = scan(patch.split("\n"))
    if found.problem:
        return StaticChecks()
    try:
        read_patch(patch)
        files = apply_strictly(patch, named_files(found.sections, tree))
    except ValueError:
        return StaticChecks()
    return check_files(files) if files else StaticChecks(applies=False)


def check_files(files: ChangedFiles) -> StaticChecks:
    """Checks the files of a patch that applies.

    Files that did not parse before are left out, since they are written for another
    version of Python. A new file may be one of them under a new name.
    """
    moved = [file for path, file in files.old.items() if path not in files.new]
    unparsable = []
    for path, file in files.new.items():
        before = [files.old[path]] if path in files.old else moved
        if _parses(path, file) is False and all(
            _parses(path, old) is not False for old in before
        ):
            unparsable.append(path)
    return StaticChecks(applies=True, unparsable=tuple(sorted(unparsable)))


def refuse_uncertain(files: ChangedFiles) -> None:
    """Refuse files that an answer does not change, or that repairs leave uncertain.

    Raises:
        NothingChangesError: Every file stays as it was.
        ValueError: The line endings of a new file are ambiguous.
    """
    for path in files.new.keys() - files.old.keys():
        crlf = any(line.endswith("\r") for line in files.new[path].text.lines)
        if crlf and "crlf" in files.repairs:
            raise ValueError(f"the line endings of {path} are ambiguous")
    if files.old == files.new:
        raise NothingChangesError


def check_counts(candidates: Iterable[Candidate]) -> CheckCounts:
    """Counts candidates by result of their static checks."""
    checks = [candidate.checks for candidate in candidates]
    return CheckCounts(
        checked=sum(check.applies is not None for check in checks),
        refused=sum(check.applies is False for check in checks),
        unparsable=sum(bool(check.unparsable) for check in checks),
    )


def _parses(path: str, file: File) -> bool | None:
    """Whether a Python file parses; `None` for other files and very large ones."""
    if not path.endswith(".py"):
        return None
    content = file.text.encoded()
    if len(content) > _LARGEST:
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
