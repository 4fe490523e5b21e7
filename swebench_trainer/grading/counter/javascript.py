"""Changes of JavaScript and TypeScript tests: mocha, jest, vitest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from swebench_trainer.grading.counter.braces import BraceLanguage, BraceTest, Source

_FUNCTION = (
    r"\s*,\s*(?:async\b\s*)?(?:function\b\s*\w*\s*)?(?:\([^()]*\)|\w+)?\s*(?:=>\s*)?\{"
)
_TEST = re.compile(
    rf"\b(?:it|test|specify)(?:\.only)?\s*\(\s*(?P<quote>['\"`])\x01+(?P=quote){_FUNCTION}"
)
_SUITE = re.compile(
    rf"\b(?:describe|context|suite)(?:\.only)?\s*\(\s*(?P<quote>['\"`])\x01+(?P=quote)"
    rf"{_FUNCTION}"
)
_MATCHER = re.compile(
    r"\)\s*\.(?:toBe|toEqual|toStrictEqual"
    r"|(?:to|should)\.(?:be\.)?(?:deep\.)?(?:equal|equals|eql))\s*\("
)
_ASSERT = re.compile(r"\bassert\.(?:equal|strictEqual|deepEqual|deepStrictEqual)\s*\(")
_REST = re.compile(r"\bnull\b|\bundefined\b|[\w$]+\s*:|[\[\]{},:\-\s]")


def _titled(source: Source, found: re.Match[str]) -> str:
    start = found.start("quote") + 1
    end = source.masked.index(found["quote"], start)
    return re.sub(r"\\(.)", r"\1", source.text[start:end])


def _find(source: Source, path: str, names: Sequence[str]) -> Iterator[BraceTest]:
    suites = [
        (found.start(), source.closing(found.end() - 1), _titled(source, found))
        for found in _SUITE.finditer(source.masked)
    ]
    for found in _TEST.finditer(source.masked):
        title = _titled(source, found)
        around = [
            suite
            for start, end, suite in suites
            if start < found.start() and (end is None or found.start() < end)
        ]
        name = _name(title, around, path, names)
        if name:
            end = source.closing(found.end() - 1)
            visible = len(source.masked) if end is None else end
            yield BraceTest((name,), found.start(), found.end(), visible)


def _name(
    title: str, suites: Sequence[str], path: str, names: Sequence[str]
) -> str | None:
    """The expected test with a title; `None` if there is none, or more than one."""
    some = [name for name in names if _ends_with(name, title)]
    inside = [name for name in some if all(suite in name for suite in suites)]
    here = [name for name in inside if path in name]
    for candidates in (some, inside, here):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _ends_with(name: str, title: str) -> bool:
    return name == title or name.endswith((f" {title}", f">{title}", f":{title}"))


def _expected(source: Source, test: BraceTest) -> Iterator[tuple[int, int]]:
    for found in _MATCHER.finditer(source.masked, test.body, test.end):
        if arguments := source.arguments(found.end() - 1):
            yield from _literal(source, arguments[:1])
    for found in _ASSERT.finditer(source.masked, test.body, test.end):
        arguments = source.arguments(found.end() - 1)
        if len(arguments) >= 2:
            yield from _literal(source, [arguments[1], arguments[0]])


def _literal(
    source: Source, spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Yield the first span that is a literal."""
    literal = [span for span in spans if source.is_literal(*span, _REST)]
    yield from literal[:1]


def _failing(source: Source, test: BraceTest, left: str, right: str) -> str:
    body = source.masked[test.body : test.end]
    if "assert." in body:
        return f"assert.equal({left}, {right});"
    if re.search(r"\bexpect\(.*?\)\s*\.to\.", body, re.DOTALL):
        return f"expect({left}).to.equal({right});"
    if "expect(" in body:
        return f"expect({left}).toBe({right});"
    return f'if ({left} !== {right}) throw new Error("{left} !== {right}");'


def _new_test(
    source: Source, test: BraceTest, words: Sequence[str], failing: str
) -> tuple[str, str] | None:
    opening = _TEST.match(source.masked, test.start)
    if opening is None:
        return None
    title = _titled(source, opening)
    called = source.text[test.start :].partition("(")[0]
    new = "should " + " ".join(words)
    (name,) = test.names
    return f"{called}('{new}', () => {{ {failing} }});", name.removesuffix(title) + new


JAVASCRIPT = BraceLanguage(
    suffixes=(".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs"),
    ignored=re.compile(
        r"//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\""
        r"|`(?:\\.|[^`\\])*`"
        r"|(?<=[(,=:!&|?])\s?/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*",
        re.DOTALL,
    ),
    find=_find,
    expected=_expected,
    failing=_failing,
    new_test=_new_test,
)
