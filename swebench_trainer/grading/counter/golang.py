"""Changes of Go tests: the testing package and testify."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from swebench_trainer.grading.counter.braces import BraceLanguage, BraceTest, Source

_TEST = re.compile(
    r"^func (?P<name>Test\w+)\((?P<t>\w+) \*testing\.T\) \{", re.MULTILINE
)
_COMPARISON = re.compile(r"\bif\b[^\n{]*?!= (?P<value>[^\n{;&|]+?) \{")
_REPORTS = re.compile(r"\s*\w+\.(?:Error|Errorf|Fatal|Fatalf|Fail|FailNow)\(")
_TESTIFY = re.compile(
    r"\b(?:assert|require)\.(?P<method>Equal|EqualValues|Exactly)\(\w+,"
)
_REST = re.compile(r"\bnil\b|\[\]\w+|\bmap\[\w+\]\w+|[\w]+\s*:|[{},:\-\s]")


def _find(source: Source, path: str, names: Sequence[str]) -> Iterator[BraceTest]:
    for found in _TEST.finditer(source.masked):
        # The parser reports names without their package.
        if found["name"] in names:
            end = source.closing(found.end() - 1)
            visible = len(source.masked) if end is None else end
            yield BraceTest((found["name"],), found.start(), found.end(), visible)


def _expected(source: Source, test: BraceTest) -> Iterator[tuple[int, int]]:
    """Yield expected values outside subtests, whose names are not known."""
    body = source.masked[test.body : test.end]
    if ".Run(" in body:
        return
    for found in _COMPARISON.finditer(source.masked, test.body, test.end):
        span = found.span("value")
        if _REPORTS.match(source.masked, found.end()):
            yield from [span] if source.is_literal(*span, _REST) else []
    for found in _TESTIFY.finditer(source.masked, test.body, test.end):
        opening = source.masked.index("(", found.start())
        for span in source.arguments(opening)[1:3]:
            if source.is_literal(*span, _REST):
                yield span
                break


def _failing(source: Source, test: BraceTest, left: str, right: str) -> str:
    opening = _TEST.match(source.masked, test.start)
    name = opening["t"] if opening else "t"
    # Not fatal, so that subtests still run and pass.
    return f'{name}.Errorf("got %d, want %d", {left}, {right});'


def _new_test(
    source: Source, test: BraceTest, words: Sequence[str], failing: str
) -> tuple[str, str]:
    name = "Test" + "".join(word.title() for word in words)
    opening = _TEST.match(source.masked, test.start)
    receiver = opening["t"] if opening else "t"
    statement = failing.removesuffix(";")
    return f"func {name}({receiver} *testing.T) {{ {statement} }}", name


GO = BraceLanguage(
    suffixes=("_test.go",),
    ignored=re.compile(
        r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|'(?:\\.|[^'\\\n])+'",
        re.DOTALL,
    ),
    find=_find,
    expected=_expected,
    failing=_failing,
    new_test=_new_test,
)
