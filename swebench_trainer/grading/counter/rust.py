"""Changes of Rust tests: cargo's own test runner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from swebench_trainer.grading.counter.braces import BraceLanguage, BraceTest, Source

_TEST = re.compile(
    r"^[ \t]*#\[(?:\w+::)?test\b[^\]]*\]\s*"
    r"(?P<others>(?:#\[[^\n]*\]\s*)*)"
    r"(?:pub\s+)?(?P<async>async\s+)?fn\s+(?P<name>\w+)\s*\(\s*\)[^{;]*\{",
    re.MULTILINE,
)
_EQUALITY = re.compile(r"\bassert_eq!\s*\(")
_REST = re.compile(
    r"\b(?:Some|Ok|Err|None)\b|\bString::from\b|\.(?:to_string|to_owned|into)\(\)"
    r"|\bvec!|[&\[\](),:\-\s]"
)


def _find(source: Source, path: str, names: Sequence[str]) -> Iterator[BraceTest]:
    for found in _TEST.finditer(source.masked):
        some = [name for name in names if name.rpartition("::")[2] == found["name"]]
        if len(some) != 1 or "should_panic" in found["others"]:
            continue
        end = source.closing(found.end() - 1)
        visible = len(source.masked) if end is None else end
        yield BraceTest((some[0],), found.start(), found.end(), visible)


def _expected(source: Source, test: BraceTest) -> Iterator[tuple[int, int]]:
    for found in _EQUALITY.finditer(source.masked, test.body, test.end):
        for span in reversed(source.arguments(found.end() - 1)[:2]):
            if source.is_literal(*span, _REST):
                yield span
                break


def _failing(source: Source, test: BraceTest, left: str, right: str) -> str:
    return f"assert_eq!({left}, {right});"


def _new_test(
    source: Source, test: BraceTest, words: Sequence[str], failing: str
) -> tuple[str, str]:
    name = "_".join(words)
    module = test.names[0].rpartition("::")
    return f"#[test] fn {name}() {{ {failing} }}", f"{module[0]}{module[1]}{name}"


RUST = BraceLanguage(
    suffixes=(".rs",),
    ignored=re.compile(
        r"//[^\n]*|/\*.*?\*/|r(?P<hashes>#*)\".*?\"(?P=hashes)"
        r"|\"(?:\\.|[^\"\\])*\"|'(?:\\[^\n']+|[^'\\\n])'",
        re.DOTALL,
    ),
    find=_find,
    expected=_expected,
    failing=_failing,
    new_test=_new_test,
)
