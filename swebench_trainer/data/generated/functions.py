"""Functions, and the faults that are put into them, drawn from `forms.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from string import Template
from typing import Any

from swebench_trainer.data.generated.values import draw_arguments

_CALLS = 24
"""Calls that a function is tried with."""
_LONGEST = 60
"""Characters of a call or a result that an issue can tell."""
_DIGITS = 12
"""Of a ticket: so many that some repeat, and the last one does not tell the next."""


@dataclass(frozen=True)
class Form:
    """What functions of one kind have in common; see `forms.toml`."""

    call: tuple[str, ...]
    arguments: tuple[str, ...]
    code: str
    faults: tuple[tuple[str, str, str], ...]

    @property
    def numbered(self) -> bool:
        """Whether each of its functions has other small numbers in it."""
        return (
            re.search(r"\$[nm]\b", f"{self.call} {self.code} {self.faults}") is not None
        )


@dataclass(frozen=True)
class Function:
    """A function as it should be.

    Attributes:
        holes: What its form's holes were filled with.
        ticket: A number that its docstring names; empty if it names none.
    """

    form: Form
    holes: Mapping[str, str]
    ticket: str = ""

    @property
    def name(self) -> str:
        """How it is called."""
        return self.holes["f"]

    @property
    def code(self) -> str:
        """Its definition."""
        return self.signed(self.fill(self.form.code))

    def fill(self, text: str) -> str:
        """A text of its form, with its own names in it."""
        return Template(text).substitute(self.holes)

    def signed(self, code: str) -> str:
        """Its code, or that of its faulty version, with the ticket in the docstring."""
        ends = f'. Ticket {self.ticket}."""' if self.ticket else '."""'
        return code.replace('."""', ends, 1)


@dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Attributes:
        value: What it returned.
        error: The class of the exception that it raised instead; empty if none.
    """

    value: object
    error: str = ""


@dataclass(frozen=True)
class Case:
    """A call, what it should give, and what it gives in the faulty function."""

    call: str
    want: object
    got: Outcome

    @property
    def fails(self) -> bool:
        """Whether a test of it fails; as `assertEqual` sees it."""
        return bool(self.got.error) or self.got.value != self.want

    @property
    def size(self) -> int:
        """Characters of the longest that can be told of it."""
        told = (self.call, repr(self.want), repr(self.got.value))
        return max(map(len, told))


@dataclass(frozen=True)
class Faulty:
    """A function with a fault.

    Attributes:
        kind: Which of the kinds of faults.
        failing: Cases that show the fault, as `draw_cases` gives them.
        passing: Cases that do not.
    """

    function: Function
    kind: str
    code: str
    failing: tuple[Case, ...]
    passing: tuple[Case, ...]


@cache
def vocabulary() -> dict[str, Any]:
    """What `forms.toml` has beside the forms: names, things and issues."""
    return {key: value for key, value in _content().items() if key != "form"}


@cache
def every_form() -> tuple[Form, ...]:
    """The forms, in the order of the file."""
    return tuple(
        Form(
            call=tuple(entry["call"]),
            arguments=tuple(entry["arguments"]),
            code=entry["code"],
            faults=tuple(
                (kind, right, wrong) for kind, right, wrong in entry["faults"]
            ),
        )
        for entry in _content()["form"]
    )


def shortest_forms(number: int, *, numbered: bool = True) -> tuple[Form, ...]:
    """So many forms, those with the least code.

    Args:
        number: How many; 0 takes all.
        numbered: Whether forms are among them whose functions have numbers of their own.
    """
    forms = [form for form in every_form() if numbered or not form.numbered]
    if not number:
        return tuple(forms)
    return tuple(sorted(forms, key=lambda form: len(form.code))[:number])


def forms_text() -> str:
    """The text of `forms.toml`."""
    return files(__package__).joinpath("forms.toml").read_text(encoding="utf-8")


@cache
def _content() -> dict[str, Any]:
    return tomllib.loads(forms_text())


def draw_function(draw: Random, form: Form, tickets: float = 0) -> Function:
    """Fills the holes of a form.

    Args:
        draw: Chooses.
        form: What the function is of.
        tickets: How likely its docstring names one.
    """
    names = vocabulary()["names"]
    (x, xs), (_, ys) = draw.sample(sorted(vocabulary()["things"].items()), 2)
    n, m = draw.sample(range(2, 10), 2)
    holes = {"x": x, "xs": xs, "ys": ys, "n": str(n), "m": str(m)}
    holes |= {hole: draw.choice(some) for hole, some in sorted(names.items())}
    holes["f"] = Template(draw.choice(form.call)).substitute(holes)
    named = tickets and draw.random() < tickets
    return Function(form, holes, _ticket(draw) if named else "")


def _ticket(draw: Random) -> str:
    return f"{draw.randrange(10**_DIGITS):0{_DIGITS}}"


def draw_fault(draw: Random, function: Function) -> Faulty | None:
    """Puts a fault into a function, and finds calls that show it.

    Returns:
        `None` if no call that an issue can tell of shows it.
    """
    kind, right, wrong = draw.choice(function.form.faults)
    code = put_fault(function, right, wrong)
    cases = draw_cases(draw, function, code)
    failing = tuple(case for case in cases if case.fails)
    passing = tuple(case for case in cases if not case.fails)
    return Faulty(function, kind, code, failing, passing) if failing else None


def put_fault(function: Function, right: str, wrong: str) -> str:
    """The code of a function with what is wrong in the place of what is right.

    Raises:
        ValueError: What is right does not stand in the code exactly once.
    """
    code, right = function.fill(function.form.code), function.fill(right)
    if code.count(right) != 1:
        raise ValueError(f"{right!r} stands {code.count(right)} times in {code}")
    return function.signed(code.replace(right, function.fill(wrong)))


def draw_cases(
    draw: Random, function: Function, code: str, tries: int = _CALLS
) -> list[Case]:
    """Calls that the function answers, with what some other code makes of them.

    Args:
        draw: Chooses the arguments.
        function: As it should be.
        code: Of the other function, which has the same name.
        tries: How many calls are tried.

    Returns:
        The shortest first, none twice, and none that is too long to be told.
    """
    arguments = (draw_arguments(draw, function.form.arguments) for _ in range(tries))
    calls = [f"{function.name}({some})" for some in dict.fromkeys(arguments)]
    answers = zip(outcomes(function.code, calls), outcomes(code, calls), strict=True)
    cases = [
        Case(call, want.value, got)
        for call, (want, got) in zip(calls, answers, strict=True)
        if not want.error
    ]
    told = (case for case in cases if case.size <= _LONGEST)
    return sorted(told, key=lambda case: case.size)


def outcomes(code: str, calls: Sequence[str]) -> list[Outcome]:
    """Runs calls of what some code defines, each with arguments of its own."""
    space: dict[str, Any] = {}
    exec(code, space)  # noqa: S102 - the code comes from forms.toml
    return [_outcome(call, space) for call in calls]


def _outcome(call: str, space: dict[str, Any]) -> Outcome:
    try:
        return Outcome(eval(call, space))  # noqa: S307 - see above
    except Exception as error:  # a fault may raise anything
        return Outcome(None, type(error).__name__)
