"""Tests in languages with braces, found by scanning the visible text.

Strings and comments are masked first, so that patterns and brackets see only code.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from swebench_trainer.grading.counter.draws import Draws
from swebench_trainer.grading.counter.literals import other_number, other_text
from swebench_trainer.grading.counter.places import (
    VARIETY,
    Place,
    new_words,
    words_of,
)
from swebench_trainer.grading.counter.test_files import Hunk, TestPatch
from swebench_trainer.types import Instance, Strength

MASK = "\x01"
_OPEN, _CLOSE = "([{", ")]}"
_LITERAL = re.compile(
    r"(?P<quote>[\"'])(?P<text>\x01*)(?P=quote)"
    r"|(?<![\w.$])(?P<number>\d+(?:\.\d+)?)(?![\w.])"
    r"|\b(?P<boolean>true|false)\b"
)
_KEY = re.compile(r"\s*:(?!:)")
_BOOLEANS = {"true": "false", "false": "true"}


@dataclass(frozen=True)
class Source:
    """The visible text of a hunk.

    Attributes:
        ignored: Matches strings and comments.
    """

    hunk: Hunk
    ignored: re.Pattern[str]

    @cached_property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(line.text for line in self.hunk.lines)

    @cached_property
    def masked(self) -> str:
        """The text without comments and without the contents of strings."""
        return self.ignored.sub(_masked, self.text)

    @cached_property
    def _starts(self) -> list[int]:
        sizes = (len(line.text) + 1 for line in self.hunk.lines)
        return list(accumulate(sizes, initial=0))

    def line(self, offset: int) -> tuple[int, int]:
        """The index of the line at an offset, and the offset in the line."""
        index = bisect_right(self._starts, offset) - 1
        return index, offset - self._starts[index]

    def closing(self, opening: int) -> int | None:
        """The offset of the bracket that closes one; `None` if it is not visible."""
        depth = 0
        for offset in range(opening, len(self.masked)):
            char = self.masked[offset]
            depth += (char in _OPEN) - (char in _CLOSE)
            if depth == 0:
                return offset
        return None

    def arguments(self, opening: int) -> list[tuple[int, int]]:
        """Spans of the arguments of a call; none if its end is not visible."""
        end = self.closing(opening)
        if end is None:
            return []
        spans, start, depth = [], opening + 1, 0
        for offset in range(opening + 1, end + 1):
            char = self.masked[offset]
            if offset == end or (char == "," and depth == 0):
                spans.append((start, offset))
                start = offset + 1
            depth += (char in _OPEN) - (char in _CLOSE)
        return spans

    def literals(self, start: int, end: int) -> list[re.Match[str]]:
        """The literals in a span, except keys of objects."""
        found = _LITERAL.finditer(self.masked, start, end)
        return [m for m in found if not _KEY.match(self.masked, m.end(), end)]

    def is_literal(self, start: int, end: int, other: re.Pattern[str]) -> bool:
        """Whether a span has nothing but literals and what a pattern allows."""
        rest = _LITERAL.sub("", self.masked[start:end])
        return bool(self.literals(start, end)) and not other.sub("", rest).strip()


@dataclass(frozen=True)
class BraceTest:
    """A test in a source.

    Attributes:
        names: The expected tests, as the log parser reports them.
        start: Offset of the test.
        body: Offset behind the brace that opens its body.
        end: Offset of the brace that closes it, or of the end of what is visible.
    """

    names: tuple[str, ...]
    start: int
    body: int
    end: int


@dataclass(frozen=True)
class BraceLanguage:
    """What differs between the languages.

    Attributes:
        suffixes: Endings of file names.
        ignored: Matches strings and comments.
        find: Finds the expected tests of a source; the path and the names are given.
        expected: Finds the spans of values that a test expects.
        failing: A statement that always fails; two different literals are given.
        new_test: A test of one line and its name, from words, a failing statement, and
            the names of its neighbor; `None` if the name would not be known.
    """

    suffixes: tuple[str, ...]
    ignored: re.Pattern[str]
    find: Callable[[Source, str, Sequence[str]], Iterator[BraceTest]]
    expected: Callable[[Source, BraceTest], Iterator[tuple[int, int]]]
    failing: Callable[[Source, BraceTest, str, str], str]
    new_test: Callable[[Source, BraceTest, Sequence[str], str], tuple[str, str] | None]

    def places(
        self, patch: TestPatch, instance: Instance, strength: Strength
    ) -> Iterator[Place]:
        """Yield the places of a strength in the tests of an instance."""
        names = (*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS)
        wanted = set(instance.FAIL_TO_PASS)
        for path, file in patch.files.items():
            if not path.endswith(self.suffixes):
                continue
            for hunk in file.hunks:
                source = Source(hunk, self.ignored)
                for test in self.find(source, path, names):
                    found = _Found(self, instance, path, source, test)
                    if strength is Strength.CANARY:
                        yield from found.canaries(names)
                    elif wanted.intersection(test.names):
                        expects = strength is Strength.EXPECTATION
                        yield from (
                            found.expectations() if expects else found.sabotages()
                        )


@dataclass(frozen=True)
class _Found:
    """A test and where it is."""

    language: BraceLanguage
    instance: Instance
    path: str
    source: Source
    test: BraceTest

    def expectations(self) -> Iterator[Place]:
        for start, end in self.language.expected(self.source, self.test):
            for literal in self.source.literals(start, end):
                draws = self._draws(literal.start())
                texts = [self._other(literal, draws) for _ in range(VARIETY)]
                yield from self._place(literal.start(), literal.end(), texts)

    def sabotages(self) -> Iterator[Place]:
        body, draws = self.test.body, self._draws("sabotage")
        texts = [f" {self._failing(draws)}" for _ in range(VARIETY)]
        yield from self._place(body, body, texts)

    def canaries(self, names: Sequence[str]) -> Iterator[Place]:
        index, _ = self.source.line(self.test.start)
        lines = self.source.hunk.lines
        above = index - 1
        while above >= 0 and lines[above].text.strip().startswith(("#[", "@", "//")):
            above -= 1
        if above < 0 or lines[above].text.strip():
            return
        indent = re.match(r"\s*", lines[index].text)
        words, draws = words_of(names), self._draws("canary")
        for _ in range(VARIETY):
            chosen = new_words(words, draws)
            new = self.language.new_test(
                self.source, self.test, chosen, self._failing(draws)
            )
            if new and indent:
                text, name = new
                yield from self._line(
                    above, [indent[0] + text], names=(name,), test="canary"
                )

    def _failing(self, draws: Draws) -> str:
        left, right = str(draws.below(90) + 10), str(draws.below(900) + 100)
        return self.language.failing(self.source, self.test, left, right)

    def _draws(self, what: object) -> Draws:
        line = self.source.hunk.lines[self.source.line(self.test.start)[0]]
        return Draws(self.instance.instance_id, self.path, line.number, what)

    def _other(self, literal: re.Match[str], draws: Draws) -> str:
        old = self.source.text[literal.start() : literal.end()]
        if literal["quote"]:
            return f"{old[0]}{other_text(old[1:-1], draws)}{old[-1]}"
        if literal["number"]:
            return other_number(old, draws) or ""
        return _BOOLEANS[old]

    def _place(self, start: int, end: int, texts: Sequence[str]) -> Iterator[Place]:
        index, column = self.source.line(start)
        old = self.source.hunk.lines[index].text
        new = [
            f"{old[:column]}{text}{old[column + end - start :]}"
            for text in texts
            if text
        ]
        yield from self._line(index, new, self.test.names, self._key())

    def _key(self) -> str:
        return f"{self.path}:{self.source.line(self.test.start)[0]}:{self.test.names}"

    def _line(
        self, index: int, texts: Sequence[str], names: tuple[str, ...], test: str
    ) -> Iterator[Place]:
        line = self.source.hunk.lines[index]
        if texts and line.number not in self.source.hunk.fixed:
            options = tuple(dict.fromkeys(texts))
            yield Place(test, self.path, names, line.number, line.text, options)


def _masked(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] not in "\"'`":  # a comment, or a literal of another form
        return re.sub(r"[^\n]", " " if text[0] == "/" else MASK, text)
    return text[0] + re.sub(r"[^\n]", MASK, text[1:-1]) + text[-1]
