"""Random functions from the templates in `forms.toml`, and bugs inserted into them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from string import Template
from typing import Any

_CALLS = 24
"""Number of calls that a function is tried with."""
_LONGEST = 60
"""Maximum characters of a call or a result in an issue."""
_DIGITS = 12
"""Digits of a ticket number; long enough that digits repeat unpredictably."""
_WORDS = [
    "red",
    "blue",
    "oak",
    "elm",
    "fox",
    "owl",
    "tin",
    "sun",
    "ice",
    "sea",
    "map",
    "anna",
    "noon",
    "level",
    "radar",
    "maple",
    "stone",
    "cloud",
    "amber",
    "delta",
]
_LETTERS = "abdelmnorst"


@dataclass(frozen=True)
class Form:
    """A template for functions of one kind; see `forms.toml`."""

    call: tuple[str, ...]
    arguments: tuple[str, ...]
    code: str
    faults: tuple[tuple[str, str, str], ...]

    @property
    def numbered(self) -> bool:
        """Whether its functions contain random small numbers."""
        text = f"{self.call} {self.code} {self.faults}"
        return re.search(r"\$[nm]\b", text) is not None


@dataclass(frozen=True)
class Function:
    """A correct function.

    Attributes:
        holes: Values of the placeholders of its form.
        ticket: Ticket number in its docstring; empty if it has none.
    """

    form: Form
    holes: Mapping[str, str]
    ticket: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        return self.holes["f"]

    @property
    def code(self) -> str:
        """Its source code."""
        return self.signed(self.fill(self.form.code))

    def fill(self, text: str) -> str:
        """Fill the placeholders of a text of its form."""
        return Template(text).substitute(self.holes)

    def signed(self, code: str) -> str:
        """Code of this function, or of its buggy version, with the ticket in the docstring."""
        ends = f'. Ticket {self.ticket}."""' if self.ticket else '."""'
        return code.replace('."""', ends, 1)


@dataclass(frozen=True)
class CallResult:
    """The result of a call.

    Attributes:
        value: The return value.
        error: Class name of the raised exception; empty if it returned.
    """

    value: object
    error: str = ""


@dataclass(frozen=True)
class Case:
    """A call, its correct result, and its result in the buggy function."""

    call: str
    want: object
    got: CallResult

    @property
    def fails(self) -> bool:
        """Whether `assertEqual` fails in the buggy function."""
        return bool(self.got.error) or self.got.value != self.want

    @property
    def size(self) -> int:
        """Characters of the longest of the call and its results."""
        texts = (self.call, repr(self.want), repr(self.got.value))
        return max(map(len, texts))


@dataclass(frozen=True)
class BuggyFunction:
    """A function with a bug.

    Attributes:
        kind: Kind of the bug.
        failing: Cases that show the bug, in the order of `draw_cases`.
        passing: Cases that do not show it.
    """

    function: Function
    kind: str
    code: str
    failing: tuple[Case, ...]
    passing: tuple[Case, ...]


@cache
def vocabulary() -> dict[str, Any]:
    """The other tables of `forms.toml`: names, things and issues."""
    return {key: value for key, value in _content().items() if key != "form"}


@cache
def every_form() -> tuple[Form, ...]:
    """All forms, in file order."""
    return tuple(
        Form(
            call=tuple(entry["call"]),
            arguments=tuple(entry["arguments"]),
            code=entry["code"],
            faults=tuple(map(tuple, entry["faults"])),
        )
        for entry in _content()["form"]
    )


def shortest_forms(number: int, *, numbered: bool = True) -> tuple[Form, ...]:
    """The forms with the shortest code.

    Args:
        number: Number of forms; 0 means all.
        numbered: Whether to include forms with random small numbers.
    """
    forms = [form for form in every_form() if numbered or not form.numbered]
    if not number:
        return tuple(forms)
    return tuple(sorted(forms, key=lambda form: len(form.code))[:number])


def forms_text() -> str:
    """The content of `forms.toml`."""
    return files(__package__).joinpath("forms.toml").read_text(encoding="utf-8")


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(forms_text())


def draw_function(rng: Random, form: Form, tickets: float = 0) -> Function:
    """Fill the placeholders of a form.

    Args:
        rng: Random generator.
        form: Form of the function.
        tickets: Probability that its docstring has a ticket number.
    """
    names = vocabulary()["names"]
    (x, xs), (_, ys) = rng.sample(sorted(vocabulary()["things"].items()), 2)
    n, m = rng.sample(range(2, 10), 2)
    holes = {"x": x, "xs": xs, "ys": ys, "n": str(n), "m": str(m)}
    holes |= {hole: rng.choice(some) for hole, some in sorted(names.items())}
    holes["f"] = Template(rng.choice(form.call)).substitute(holes)
    if tickets and rng.random() < tickets:
        return Function(form, holes, f"{rng.randrange(10**_DIGITS):0{_DIGITS}}")
    return Function(form, holes)


def draw_bug(rng: Random, function: Function) -> BuggyFunction | None:
    """Insert a bug into a function, and find calls that show it.

    Returns:
        `None` if no call that is short enough for an issue shows it.
    """
    kind, right, wrong = rng.choice(function.form.faults)
    code = insert_bug(function, right, wrong)
    cases = draw_cases(rng, function, code)
    failing = tuple(case for case in cases if case.fails)
    passing = tuple(case for case in cases if not case.fails)
    return BuggyFunction(function, kind, code, failing, passing) if failing else None


def insert_bug(function: Function, right: str, wrong: str) -> str:
    """The code of a function with `right` replaced by `wrong`.

    Raises:
        ValueError: `right` does not occur exactly once in the code.
    """
    code, right = function.fill(function.form.code), function.fill(right)
    if code.count(right) != 1:
        raise ValueError(f"{right!r} occurs {code.count(right)} times in {code}")
    return function.signed(code.replace(right, function.fill(wrong)))


def draw_cases(
    rng: Random, function: Function, code: str, tries: int = _CALLS
) -> list[Case]:
    """Calls for which the function returns, with the results of the buggy code.

    Args:
        rng: Random generator.
        function: The correct function.
        code: Code of the buggy function, with the same name.
        tries: Number of calls to try.

    Returns:
        Distinct cases that are short enough for an issue, shortest first.
    """
    arguments = (_draw_arguments(rng, function.form.arguments) for _ in range(tries))
    calls = [f"{function.name}({some})" for some in dict.fromkeys(arguments)]
    answers = zip(call_all(function.code, calls), call_all(code, calls), strict=True)
    cases = [
        Case(call, want.value, got)
        for call, (want, got) in zip(calls, answers, strict=True)
        if not want.error
    ]
    short = (case for case in cases if case.size <= _LONGEST)
    return sorted(short, key=lambda case: case.size)


def call_all(code: str, calls: Sequence[str]) -> list[CallResult]:
    """Run calls of a function defined by `code`."""
    space: dict[str, Any] = {}
    exec(code, space)  # noqa: S102 - the code comes from forms.toml
    return [_call(call, space) for call in calls]


def _call(call: str, space: dict[str, Any]) -> CallResult:
    try:
        return CallResult(eval(call, space))  # noqa: S307 - see above
    except Exception as error:  # a bug may raise anything
        return CallResult(None, type(error).__name__)


# --- Arguments of calls, as Python literals ---


def _numbers(rng: Random, least: int = 0) -> list[int]:
    return [rng.randint(0, 12) for _ in range(rng.randint(least, 6))]


def _word(rng: Random) -> str:
    word = rng.choice(_WORDS)
    return rng.choice((word, word.title()))


def _counts(rng: Random, words: Sequence[str]) -> dict[str, int]:
    return {word: rng.randint(0, 9) for word in rng.sample(words, 3)}


_KINDS: dict[str, Callable[[Random], object]] = {
    "number": lambda rng: rng.randint(0, 12),
    "low": lambda rng: rng.randint(1, 5),
    "high": lambda rng: rng.randint(6, 10),
    "small": lambda rng: rng.randint(0, 4),
    "short": lambda rng: rng.randint(0, 99),
    "minutes": lambda rng: rng.randint(0, 300),
    "numbers": _numbers,
    "some numbers": lambda rng: _numbers(rng, 2),
    "letter": lambda rng: rng.choice(_LETTERS),
    "word": _word,
    "words": lambda rng: rng.sample(_WORDS, rng.randint(0, 5)),
    "text": lambda rng: " ".join(rng.sample(_WORDS, rng.randint(2, 3))),
    "repeats": lambda rng: rng.choices(_WORDS[:4], k=rng.randint(1, 5)),
    "repeated": lambda rng: rng.choice(_WORDS[:4]),
    "pairs": lambda rng: list(_counts(rng, _WORDS).items()),
    "table": lambda rng: _counts(rng, _WORDS[:9]),
}


def _draw_arguments(rng: Random, kinds: tuple[str, ...]) -> str:
    """The arguments of a call; kinds that end in `?` are optional."""
    wanted = [kind for kind in kinds if kind[-1] != "?" or rng.random() < 0.5]
    return ", ".join(repr(_KINDS[kind.rstrip("?")](rng)) for kind in wanted)
