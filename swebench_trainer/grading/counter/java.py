"""Changes of Java tests: JUnit 4 and 5, AssertJ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from swebench_trainer.grading.counter.braces import BraceLanguage, BraceTest, Source

_TEST = re.compile(
    r"@Test\b(?P<options>\([^)]*\))?(?:\s*@\w+(?:\([^)]*\))?)*\s*"
    r"(?:(?:public|protected|final)\s+)*void\s+(?P<name>\w+)\s*\(\s*\)[^{;]*\{"
)
_EQUALS = re.compile(r"\bassertEquals\s*\(")
_IS_EQUAL = re.compile(r"\)\s*\.isEqualTo\s*\(")
_REST = re.compile(r"\bnull\b|\b(?:List|Set|Arrays)\.(?:of|asList)\b|[(),\-\s]|\d+L\b")


def _find(source: Source, path: str, names: Sequence[str]) -> Iterator[BraceTest]:
    owner = PurePosixPath(path).stem
    for found in _TEST.finditer(source.masked):
        pattern = re.compile(rf"\b{owner}\b.*[^\w]{found['name']}(?:\(\))?\Z")
        some = [name for name in names if pattern.search(name)]
        if len(some) != 1 or "expected" in (found["options"] or ""):
            continue
        end = source.closing(found.end() - 1)
        visible = len(source.masked) if end is None else end
        yield BraceTest((some[0],), found.start(), found.end(), visible)


def _expected(source: Source, test: BraceTest) -> Iterator[tuple[int, int]]:
    for found in _EQUALS.finditer(source.masked, test.body, test.end):
        arguments = source.arguments(found.end() - 1)
        if len(arguments) == 2:  # a third one is a message or a tolerance
            yield from _first_literal(source, arguments)
    for found in _IS_EQUAL.finditer(source.masked, test.body, test.end):
        yield from _first_literal(source, source.arguments(found.end() - 1)[:1])


def _first_literal(
    source: Source, spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    yield from [span for span in spans if source.is_literal(*span, _REST)][:1]


def _failing(source: Source, test: BraceTest, left: str, right: str) -> str:
    if re.search(r"(?<![\w.])assertEquals\(", source.masked[test.body : test.end]):
        return f"assertEquals({left}, {right});"
    # The compiler refuses statements after a throw, but not after this one.
    return f'if ({left} != {right}) throw new AssertionError("{left} != {right}");'


def _new_test(
    source: Source, test: BraceTest, words: Sequence[str], failing: str
) -> tuple[str, str] | None:
    opening = _TEST.match(source.masked, test.start)
    if opening is None:
        return None
    old = opening["name"]
    new = words[0] + "".join(word.title() for word in words[1:])
    start, _, rest = test.names[0].rpartition(old)
    return f"@Test public void {new}() {{ {failing} }}", f"{start}{new}{rest}"


JAVA = BraceLanguage(
    suffixes=(".java",),
    ignored=re.compile(
        r"//[^\n]*|/\*.*?\*/|\"\"\".*?\"\"\"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'",
        re.DOTALL,
    ),
    find=_find,
    expected=_expected,
    failing=_failing,
    new_test=_new_test,
)
