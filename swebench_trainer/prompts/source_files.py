"""Which files of a repository are source code, and which are tests."""

from __future__ import annotations

import re

_SOURCE_NAME = re.compile(
    r".*[^/]\.(c|cc|cpp|cs|cu|cxx|dart|exs?|go|h|hh|hpp|hs|java|jl|jsx?|kt|lua|m|mjs|ml|php|pl"
    r"|proto|py|pyi|pyx|r|rb|rs|scala|sh|sql|swift|tsx?|vue)",
    re.DOTALL,
)

_TEST_FOLDERS = frozenset(("tests", "__tests__", "spec", "specs"))
_TOP_TEST_FOLDERS = frozenset(("test", "testing", "testdata"))
_TEST_NAME = re.compile(
    r"(conftest|tests?|(test|unittest)_.+|.+[_.](test|tests|spec))\.\w+"
)


def is_source(path: str) -> bool:
    """Whether a file is source code and not a test."""
    return _SOURCE_NAME.fullmatch(path.lower()) is not None and not is_test(path)


def is_test(path: str) -> bool:
    """Whether a file is a test, by its folder and its name.

    A nested folder named `test` may be a library (`django/test`); one named `tests` is
    not.
    """
    *folders, name = path.lower().split("/")
    return bool(
        _TEST_FOLDERS.intersection(folders)
        or (folders and folders[0] in _TOP_TEST_FOLDERS)
        or _TEST_NAME.fullmatch(name)
    )
