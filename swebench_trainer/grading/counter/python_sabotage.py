"""Statements that always fail, in Python tests and as new tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from swebench_trainer.grading.counter.draws import Draws
from swebench_trainer.grading.counter.places import wrong_equality
from swebench_trainer.grading.counter.python_expectations import expects_errors
from swebench_trainer.grading.counter.python_source import VisibleFunction

_LAST = 3
"""Number of statements, from the last one back, after which a test may be made to fail.

Code under test that ends the process or skips the test has been called by then.
"""

_LEAVE = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_COMPOUND = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.Match,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
)


@dataclass(frozen=True)
class Joint:
    """Where a statement can be joined to another one on its line.

    Attributes:
        line: The line, numbered as in the syntax tree.
        offset: The byte of the line.
        glue: What stands between the two.
        before: Whether the new statement is before the other one.
    """

    line: int
    offset: int
    glue: str = "; "
    before: bool = False

    def joined(self, text: str, statement: str) -> str:
        """The line with a new statement."""
        raw = text.encode()
        left, right = raw[: self.offset].decode(), raw[self.offset :].decode()
        if self.before:
            return f"{left}{statement}{self.glue}{right}"
        return f"{left}{self.glue}{statement}{right}"


def joints(function: VisibleFunction, body_indent: int, *, calls: bool) -> list[Joint]:
    """Where statements are executed in each run of a test; best places first.

    Args:
        function: The test.
        body_indent: Indentation of its body.
        calls: Whether the statement is a call, which can stand in an expression.
    """
    node = function.node
    if any(isinstance(part, ast.Yield | ast.YieldFrom) for part in _own_parts(node)):
        return []  # a generator of tests: its code runs when tests are collected
    body = [s for s in node.body if function.whole or s.col_offset == body_indent]
    after = []
    for statement in body:
        if isinstance(statement, _LEAVE):
            break
        if not isinstance(statement, _COMPOUND):
            end = statement.end_lineno or 0
            after.append(Joint(end, statement.end_col_offset or 0))
    if after:
        return after[: -_LAST - 1 : -1]
    inside = [found for found in map(_first_inside, body[:1]) if found]
    return inside or [found for found in map(_head, body[:1]) if found and calls]


def _head(statement: ast.stmt) -> Joint | None:
    """The place before the expression in the head of a block."""
    match statement:
        case ast.With(items=[ast.withitem(context_expr=value), *_]):
            pass
        case ast.For(iter=value) | ast.If(test=value) | ast.While(test=value):
            pass
        case _:
            return None
    return Joint(value.lineno, value.col_offset, " or ", before=True)


def _own_parts(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of inner functions."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
        ):
            yield from _own_parts(child)


def _first_inside(statement: ast.stmt) -> Joint | None:
    """The first place inside a block; it is certainly reached in `with` only."""
    match statement:
        case ast.With(items=items, body=[first, *_]) if not any(
            expects_errors(item.context_expr, ("subTest", "subtests")) for item in items
        ):
            return _first_inside(first)
        case ast.AsyncWith(body=[first, *_]) | ast.For(body=[first, *_]):
            return _first_inside(first)
        case _ if isinstance(statement, _COMPOUND):
            return None
    return Joint(statement.lineno, statement.col_offset, before=True)


def failing_statement(draws: Draws, receiver: str = "") -> str:
    """A statement that fails like an assertion of the test.

    Args:
        draws: Determines the values.
        receiver: The name of the unittest case, if the test uses its methods.
    """
    left, right = wrong_equality(draws)
    if receiver:
        return f"{receiver}.assertEqual({left}, {right})"
    return f"assert {left} == {right}"
