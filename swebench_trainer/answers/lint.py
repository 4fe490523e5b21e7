"""What would fail as soon as a Python file runs, as pyflakes sees it."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter

_FATAL = {
    "UndefinedName",
    "UndefinedLocal",
    "UndefinedExport",
    "DuplicateArgument",
    "ReturnOutsideFunction",
    "YieldOutsideFunction",
    "ContinueOutsideLoop",
    "BreakOutsideLoop",
    "TwoStarredExpressions",
    "DefaultExceptNotLast",
    "LateFutureImport",
    "FutureFeatureNotDefined",
}
"""The messages of pyflakes that are no matter of taste."""

_MOST = 10
"""Errors that are told of one file; one lost import can make hundreds."""


def new_errors(old: bytes, new: bytes) -> list[str]:
    """Errors of a Python file that it did not have before, such as `undefined name 'x'`.

    Both must be readable; where either is not, nothing is said.
    """
    found = _errors(new)
    if not found:
        return []
    before = _errors(old)
    return [] if before is None else sorted(found - before)[:_MOST]


def _errors(source: bytes) -> Counter[str] | None:
    from pyflakes.checker import Checker

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code, not ours
            messages = Checker(ast.parse(source)).messages
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return Counter(_words(m) for m in messages if type(m).__name__ in _FATAL)


def _words(message: object) -> str:
    """The kind of a message and what it is about, without lines, which move."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(message).__name__).lower()
    about = getattr(message, "message_args", ())
    return f"{kind} {about[0]!r}" if about and isinstance(about[0], str) else kind
