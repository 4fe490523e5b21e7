"""Values that Python tests expect: literals on one side of an equality assertion."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto

from swebench_trainer.grading.counter.draws import Draws
from swebench_trainer.grading.counter.literals import other_number, other_text
from swebench_trainer.grading.counter.python_source import Function

_EQUALITIES = frozenset(
    [
        "assertEqual",
        "assertEquals",
        "assertListEqual",
        "assertDictEqual",
        "assertSequenceEqual",
        "assertTupleEqual",
        "assertSetEqual",
        "assertCountEqual",
        "assertItemsEqual",
        "assertIs",
        "assertMultiLineEqual",
        "assertHTMLEqual",
        "assertXMLEqual",
        "assertJSONEqual",
        "assertQuerysetEqual",
        "assertQuerySetEqual",
        "assert_equal",
        "assert_equals",
        "eq_",
        "assert_array_equal",
        "assert_string_equal",
    ]
)
_CALLS_OF_MOCKS = frozenset(
    ["assert_called_with", "assert_called_once_with", "assert_any_call"]
)
_OPPOSITES = {"assertTrue": "assertFalse", "assertFalse": "assertTrue"}
_FUNCTIONS_OF_VALUES = frozenset(
    [
        "set",
        "frozenset",
        "tuple",
        "list",
        "dict",
        "array",
        "asarray",
        "mark_safe",
        "dedent",
        "sqrt",
        "exp",
        "log",
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "tanh",
        "factorial",
        "timedelta",
        "call",
    ]
)
"""Functions whose arguments say what is expected, besides classes."""

_PICKY = frozenset(("Path", "DataFrame", "Series", "Index", "Version", "UUID"))
"""Classes whose arguments are more than a value."""

_ERRORS = ("raises", "assertRaises", "warns", "assertWarns", "subTest", "test")
"""Beginnings of the names of context managers that handle errors."""

_ORDERINGS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_QUOTE = re.compile(r"(?P<prefix>[a-zA-Z]*)(?P<quote>'''|\"\"\"|'|\")")


class Kind(StrEnum):
    """What a span of source text is."""

    TEXT = auto()
    """The inside of a string literal, or one line of it."""
    NUMBER = auto()
    BOOLEAN = auto()
    METHOD = auto()
    """`assertTrue` or `assertFalse`."""


@dataclass(frozen=True)
class Span:
    """Characters of one line, numbered as in the syntax tree."""

    line: int
    start: int
    end: int
    kind: Kind

    def replaced(self, text: str, draws: Draws) -> str | None:
        """The line with another value, `None` if no other is known."""
        old = text[self.start : self.end]
        match self.kind:
            case Kind.TEXT:
                new: str | None = other_text(old, draws)
            case Kind.NUMBER:
                new = other_number(old, draws)
            case Kind.BOOLEAN:
                new = {"True": "False", "False": "True"}.get(old)
            case Kind.METHOD:
                new = _OPPOSITES.get(old)
        return text[: self.start] + new + text[self.end :] if new else None


def expectations(function: Function, lines: Mapping[int, str]) -> Iterator[Span]:
    """Yield the spans in a test whose change makes it fail.

    Args:
        function: The test.
        lines: Source lines by the numbers of the syntax tree.
    """
    finder = _Finder(function)
    for node in finder.found():
        yield from _spans(node, lines)


class _Finder:
    """Finds expected values in the assertions of a function."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._variables = _variables(function)
        self._sides: list[ast.expr] = []

    def found(self) -> list[ast.expr]:
        """Constants, and names of methods, that can be replaced."""
        found: list[ast.expr] = []
        for statement in _statements(self._function.body):
            match statement:
                case ast.Assert(test=test):
                    found += self._condition(test)
                case ast.Expr(value=ast.Call() as call):
                    found += self._call(call)
                case ast.Expr(value=ast.Await(value=ast.Call() as call)):
                    found += self._call(call)
        return found

    def _condition(self, test: ast.expr) -> list[ast.expr]:
        match test:
            case ast.Compare(left, [ast.Eq()], [right]):
                return self._equality(left, right)
            case ast.Compare(_, [ast.Is()], [ast.Constant(value=bool()) as right]):
                return [right]
            case ast.BoolOp(op=ast.And(), values=values):
                return [node for value in values for node in self._condition(value)]
        return []

    def _call(self, call: ast.Call) -> list[ast.expr]:
        name = _last_name(call.func)
        if name in _EQUALITIES and len(call.args) >= 2:
            return self._equality(call.args[0], call.args[1])
        if name in _OPPOSITES and isinstance(call.func, ast.Attribute) and call.args:
            return [] if _compares_order(call.args[0]) else [call.func]
        if name in _CALLS_OF_MOCKS and isinstance(call.func, ast.Attribute):
            values = [*call.args, *(keyword.value for keyword in call.keywords)]
            return [node for value in values for node in _Side.of(value).constants]
        return []

    def _equality(self, left: ast.expr, right: ast.expr) -> list[ast.expr]:
        sides = [_Side.of(self._meant(side)) for side in (right, left)]
        possible = [side for side in sides if side.constants]
        if not possible:
            return []
        return min(possible, key=lambda side: side.rank).constants

    def _meant(self, side: ast.expr) -> ast.expr:
        """The value of a variable that holds nothing but what is expected."""
        if isinstance(side, ast.Name):
            return self._variables.get(side.id, side)
        return side


@dataclass(frozen=True)
class _Side:
    """One side of an equality.

    Attributes:
        rank: 0 for a literal, 1 for an expression with variables, 2 for one with calls.
        constants: Those that can be replaced; none if the side computes its value.
    """

    rank: int
    constants: list[ast.expr]

    @classmethod
    def of(cls, node: ast.expr) -> _Side:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | bytes()):
                return cls(0, [node])
            case ast.Constant():
                return cls(0, [])
            case ast.Name() | ast.Attribute() | ast.Subscript():
                calls = any(isinstance(part, ast.Call) for part in ast.walk(node))
                return cls(3 if calls else 1, [])
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                return cls._joined(0, parts)
            case ast.Dict(keys=keys, values=values):
                sides = cls._joined(0, [key for key in keys if key])
                return cls._joined(sides.rank, values)
            case ast.Starred(value=value) | ast.UnaryOp(operand=value):
                return cls.of(value)
            case ast.BinOp(ast.Constant(value=str() | bytes()), ast.Mod(), right):
                return cls._joined(1, [right])
            case ast.BinOp(left=left, right=right):
                return cls._joined(0, [left, right])
            case ast.Call(func=func, args=args) if _makes_value(func):
                side = cls._joined(2, args)
                others = cls._joined(0, [keyword.value for keyword in node.keywords])
                return cls(max(side.rank, others.rank), side.constants)
        return cls(3, [])

    @classmethod
    def _joined(cls, rank: int, parts: Sequence[ast.expr]) -> _Side:
        sides = [cls.of(part) for part in parts]
        rank = max([rank, *(side.rank for side in sides)])
        constants = [node for side in sides for node in side.constants]
        return cls(rank, constants if rank < 3 else [])


def _makes_value(function: ast.expr) -> bool:
    name = _last_name(function)
    is_class = name[:1].isupper() and name not in _PICKY
    return is_class or name in _FUNCTIONS_OF_VALUES


def _last_name(node: ast.expr) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _compares_order(node: ast.expr) -> bool:
    return any(
        isinstance(part, ast.Compare) and isinstance(part.ops[0], _ORDERINGS)
        for part in ast.walk(node)
    )


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that a run executes, not those of inner functions.

    Blocks that expect errors are left out, and so are unittest's subtests, which do not
    fail under the name of the test.
    """
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                continue
            case ast.With(items=items) | ast.AsyncWith(items=items):
                if any(expects_errors(item.context_expr) for item in items):
                    continue
        yield statement
        for field in ("body", "orelse", "finalbody"):
            if isinstance(block := getattr(statement, field, None), list):
                yield from _statements(block)


def expects_errors(node: ast.expr, names: tuple[str, ...] = _ERRORS) -> bool:
    """Whether a context manager handles errors, by the beginning of its name."""
    return isinstance(node, ast.Call) and _last_name(node.func).startswith(names)


def _variables(function: Function) -> dict[str, ast.expr]:
    """Variables that are assigned once and used only as a side of an equality."""
    values: dict[str, ast.expr] = {}
    writes: Counter[str] = Counter()
    reads: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    for node in ast.walk(function):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                reads[name] += 1
            case ast.Name(id=name) | ast.arg(arg=name):
                writes[name] += 1
            case ast.Assign([ast.Name(id=name)], value):
                values[name] = value
            case ast.Assert(ast.Compare(left, [ast.Eq()], [right])):
                compared.update(_last_name(s) for s in (left, right) if _is_name(s))
            case ast.Call(func, args) if _last_name(func) in _EQUALITIES:
                compared.update(_last_name(s) for s in args[:2] if _is_name(s))
    return {
        name: value
        for name, value in values.items()
        if writes[name] == 1 and reads[name] == compared[name]
    }


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def _spans(node: ast.expr, lines: Mapping[int, str]) -> Iterator[Span]:
    """Yield the parts of a constant, or the name of a method, that can be replaced."""
    assert node.end_lineno is not None and node.end_col_offset is not None
    numbers = range(node.lineno, node.end_lineno + 1)
    if any(number not in lines for number in numbers):
        return
    end = _column(lines[node.end_lineno], node.end_col_offset)
    if isinstance(node, ast.Attribute):
        start = end - len(node.attr)
        yield Span(node.end_lineno, start, end, Kind.METHOD)
        return
    start = _column(lines[node.lineno], node.col_offset)
    assert isinstance(node, ast.Constant)
    if isinstance(node.value, str | bytes):
        yield from _text_spans([lines[number] for number in numbers], start, node)
    else:
        kind = Kind.BOOLEAN if isinstance(node.value, bool) else Kind.NUMBER
        yield Span(node.lineno, start, end, kind)


def _text_spans(rows: Sequence[str], start: int, node: ast.Constant) -> Iterator[Span]:
    """Yield the insides of a string's literals, line by line."""
    # The parenthesis lets literals that Python joins stand on several lines.
    source = "\n".join(["(" + rows[0][start:], *rows[1:]]) + "\n"
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    limit = (len(rows), _column(rows[-1], node.end_col_offset or 0))
    try:
        for token in tokens:
            shift = start - 1 if token.start[0] == 1 else 0
            if (token.start[0], token.start[1] + shift) >= limit:
                return
            if token.type != tokenize.STRING:
                continue
            yield from _token_spans(token, start - 1, node.lineno - 1)
    except (tokenize.TokenError, SyntaxError):
        return  # the end of what is visible


def _token_spans(
    token: tokenize.TokenInfo, first_shift: int, shift: int
) -> Iterator[Span]:
    opening = _QUOTE.match(token.string)
    assert opening is not None
    quote = len(opening["quote"])
    rows = token.string.split("\n")
    for at, row in enumerate(rows):
        number = token.start[0] + at
        column = token.start[1] if at == 0 else 0
        column += first_shift if number == 1 else 0
        first = opening.end() if at == 0 else 0
        last = len(row) - (quote if at == len(rows) - 1 else 0)
        if len(rows) == 1 or re.search(r"\w", row[first:last]):
            yield Span(number + shift, column + first, column + last, Kind.TEXT)


def _column(text: str, offset: int) -> int:
    """The character at which a byte starts."""
    return len(text.encode()[:offset].decode())
