"""The text of messages is for people: no code compares, splits or searches it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for pattern in ("swebench_trainer/**/*.py", "plugins/*/swebench_trainer_*/**/*.py")
    for path in ROOT.glob(pattern)
    # Tests that plugins run; they may check which names a message has.
    if not path.is_relative_to(ROOT / "swebench_trainer/testing")
)
TEXT_ATTRIBUTES = {"reason", "extraction", "args", "message", "hint"}
"""Attributes of our values and errors that hold text for people."""
METHODS = {
    "startswith",
    "endswith",
    "find",
    "rfind",
    "index",
    "rindex",
    "count",
    "split",
    "rsplit",
    "splitlines",
    "partition",
    "rpartition",
    "removeprefix",
    "removesuffix",
}
"""Methods of a text that look into it."""
SEARCHES = {"search", "match", "fullmatch", "findall", "finditer", "split"}
"""Functions of regular expressions that get a text as an argument."""
NEUTRAL = {"strip", "lower", "upper", "casefold", "replace", "rstrip", "lstrip"}
"""Methods of a text whose result is still the text of the message."""


class Finder(ast.NodeVisitor):
    """Collects the lines of a function or module that look into the text of messages."""

    def __init__(self) -> None:
        self.found: list[int] = []
        self._texts: set[str] = set()
        self._errors: set[str] = set()

    def _is_text(self, node: ast.AST) -> bool:
        match node:
            case ast.Name(id=name):
                return name in self._texts
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]):
                return name in self._errors
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[inner]):
                return self._is_text(inner)
            case ast.Attribute(attr="reason" | "extraction"):
                return True
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                return name in self._errors and attribute in TEXT_ATTRIBUTES
            case ast.Call(func=ast.Attribute(value=value, attr=method)):
                return method in NEUTRAL and self._is_text(value)
            case ast.Subscript(value=value):
                return self._is_text(value)
            case ast.NamedExpr(target=target, value=value):
                if self._is_text(value):
                    self._texts.add(target.id)
                    return True
            case ast.BoolOp(values=values):
                return any(map(self._is_text, values))
            case ast.JoinedStr(values=values):
                inner = [v.value for v in values if isinstance(v, ast.FormattedValue)]
                return any(self._is_error_or_text(value) for value in inner)
        return False

    def _is_error_or_text(self, node: ast.AST) -> bool:
        is_error = isinstance(node, ast.Name) and node.id in self._errors
        return is_error or self._is_text(node)

    @staticmethod
    def _is_squeeze(node: ast.Call) -> bool:
        """Whether a call is `text.split()`, which puts a message on one line."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        return name == "split" and not node.args and not node.keywords

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._errors.add(node.name)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self._texts, self._errors
        self._texts, self._errors = set(outer[0]), set(outer[1])
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            words = ast.unparse(argument.annotation) if argument.annotation else ""
            if "Error" in words or "Exception" in words:
                self._errors.add(argument.arg)
        self.generic_visit(node)
        self._texts, self._errors = outer

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        if self._is_text(node.value):
            self._texts |= {t.id for t in node.targets if isinstance(t, ast.Name)}

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        empty = any(isinstance(s, ast.Constant) and not s.value for s in sides)
        if any(map(self._is_text, sides)) and not empty:
            self.found.append(node.lineno)
        self.generic_visit(node)

    def visit_Match(self, node: ast.Match) -> None:
        if self._is_text(node.subject):
            self.found.append(node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            looks = node.func.attr in METHODS and self._is_text(node.func.value)
            looks = looks and not self._is_squeeze(node)
            searches = node.func.attr in SEARCHES and any(map(self._is_text, node.args))
            if looks or searches:
                self.found.append(node.lineno)
        self.generic_visit(node)


def findings(source: str) -> list[int]:
    finder = Finder()
    finder.visit(ast.parse(source))
    return finder.found


def handler(body: str) -> str:
    return f"try:\n    f()\nexcept ValueError as error:\n    {body}\n"


@pytest.mark.parametrize(
    "source",
    [
        handler("x = str(error).startswith('a')"),
        handler("x = str(error) == 'a'"),
        handler("x = 'a' in str(error)"),
        handler("x = str(error) in KNOWN"),
        handler("x = PATTERN.search(str(error))"),
        handler("x = re.match('a', str(error))"),
        handler("x = error.args[0] == 'a'"),
        handler("x = f'{error}'.split(':')"),
        handler("text = str(error).lower()\n    x = 'a' in text"),
        handler("if (text := str(error)) != 'a':\n        raise"),
        "def f(error: OSError):\n    return str(error).partition(':')\n",
        "x = candidate.extraction.partition(':')",
        "x = str(candidate.extraction) == 'ok'",
        "x = candidate.extraction == 'ok'",
        "x = verdict.reason.startswith('a')",
        "reason = verdict.reason or 'none'\nx = reason.endswith('a')",
        "match verdict.reason:\n    case 'a':\n        pass\n",
    ],
)
def test_the_lint_finds_code_that_looks_into_messages(source) -> None:
    assert findings(source)


@pytest.mark.parametrize(
    "source",
    [
        handler("raise TrainerError(f'cannot read: {error}') from error"),
        handler("log(str(error))"),
        handler("log(' '.join(str(error).split()))"),
        handler("x = 'a' in library_message(error)"),
        handler("x = error.errno == 2"),
        "x = candidate.extraction.outcome is Outcome.OK",
        "x = 'tabs' in candidate.extraction.repairs",
        "x = verdict.reason != ''",
        "x = verdict.reason or 'no reason'",
        "x = message.startswith('a')",
    ],
)
def test_the_lint_accepts_code_that_shows_messages(source) -> None:
    assert not findings(source)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_looks_into_the_text_of_messages(path) -> None:
    lines = path.read_text().split("\n")
    assert [lines[n - 1].strip() for n in findings("\n".join(lines))] == []
