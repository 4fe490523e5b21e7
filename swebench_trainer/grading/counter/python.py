"""Changes of Python tests: pytest, unittest, Django's and sympy's runners."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from swebench_trainer.grading.counter.draws import Draws
from swebench_trainer.grading.counter.places import (
    VARIETY,
    Place,
    new_words,
    words_of,
)
from swebench_trainer.grading.counter.python_expectations import expectations
from swebench_trainer.grading.counter.python_names import PythonName, PythonNames
from swebench_trainer.grading.counter.python_sabotage import failing_statement, joints
from swebench_trainer.grading.counter.python_source import (
    VisibleFunction,
    visible_functions,
)
from swebench_trainer.grading.counter.test_files import TestPatch
from swebench_trainer.types import Instance, Strength

_Official = tuple[VisibleFunction, tuple[PythonName, ...]]


def places(patch: TestPatch, instance: Instance, strength: Strength) -> Iterator[Place]:
    """Yield the places of a strength in the Python tests of an instance."""
    names = PythonNames(instance)
    functions = list(_official_functions(patch, names))
    if strength is Strength.CANARY:
        found = list(_canaries(functions, instance))
        yield from found or _appended_canaries(names, patch, instance)
        return
    find = _expectations if strength is Strength.EXPECTATION else _sabotages
    for function, expected in functions:
        if names.wants(expected) and not _fails_officially(function):
            yield from find(function, expected, instance)


def _official_functions(patch: TestPatch, names: PythonNames) -> Iterator[_Official]:
    """Yield the visible functions of expected tests."""
    for path, file in patch.files.items():
        if not path.endswith(".py"):
            continue
        for function in visible_functions(file, names.may_have):
            docstring = ast.get_docstring(function.node) if function.whole else None
            found = names.of_function(
                path, function.owner, function.name, docstring or ""
            )
            if found:
                yield function, found


def _fails_officially(function: VisibleFunction) -> bool:
    """Whether the test is marked as an expected failure in all cases."""
    for decorator in function.node.decorator_list:
        text = ast.unparse(decorator)
        if text.endswith(("expectedFailure", "mark.xfail")):
            return True
        if isinstance(decorator, ast.Call) and not decorator.args:
            return ".xfail(" in text
    return False


def _expectations(
    function: VisibleFunction, names: tuple[PythonName, ...], instance: Instance
) -> Iterator[Place]:
    for span in expectations(function.node, function.source):
        number = span.line + function.shift
        if not function.can_change(number):
            continue
        text = function.lines[number].text
        draws = Draws(instance.instance_id, function.path, number, span.start)
        texts = [span.replaced(text, draws) for _ in range(VARIETY)]
        known = [new for new in texts if new is not None]
        if known:
            yield _place(function, names, number, known)


def _sabotages(
    function: VisibleFunction, names: tuple[PythonName, ...], instance: Instance
) -> Iterator[Place]:
    indent = 8 if names[0].owner else 4
    receiver = _receiver(function, names)
    for joint in joints(function, indent, calls=bool(receiver)):
        number = joint.line + function.shift
        if not function.can_change(number):
            continue
        text = function.lines[number].text
        draws = Draws(instance.instance_id, function.path, number, "sabotage")
        texts = [
            joint.joined(text, failing_statement(draws, receiver))
            for _ in range(VARIETY)
        ]
        yield _place(function, names, number, texts)


def _place(
    function: VisibleFunction,
    names: tuple[PythonName, ...],
    number: int,
    texts: list[str],
) -> Place:
    return Place(
        function.key,
        function.path,
        tuple(sorted(name.name for name in names)),
        number,
        function.lines[number].text,
        tuple(dict.fromkeys(texts)),
    )


def _receiver(function: VisibleFunction, names: tuple[PythonName, ...]) -> str:
    """What has the methods of unittest, if the test uses them."""
    arguments = function.node.args.args
    name = arguments[0].arg if arguments else "self"
    calls = any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
        and node.attr.startswith("assert")
        for node in ast.walk(function.node)
    )
    return name if calls or _is_unittest(names[0]) else ""


def _is_unittest(name: PythonName) -> bool:
    """Whether a name is of unittest's form: with a module, or a docstring."""
    return "::" not in name.name and bool(name.place or not name.function)


def _canaries(functions: list[_Official], instance: Instance) -> Iterator[Place]:
    """Yield new tests of one line in place of an empty line before a test."""
    words = words_of((*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS))
    for function, names in functions:
        if not function.whole or not names[0].function:
            continue
        number = _empty_line_before(function)
        if number is None:
            continue
        draws = Draws(instance.instance_id, function.path, number, "canary")
        indent = function.indent
        for _ in range(VARIETY):
            test = "_".join(["test", *new_words(words, draws)])
            receiver = "self" if indent else ""
            case = receiver if _receiver(function, names) else ""
            statement = failing_statement(draws, case)
            yield Place(
                "canary",
                function.path,
                tuple(sorted({name.renamed(test) for name in names})),
                number,
                function.lines[number].text,
                (f"{indent}def {test}({receiver}): {statement}",),
            )


def _empty_line_before(function: VisibleFunction) -> int | None:
    """The empty line before a function and its decorators."""
    first = min(n.lineno for n in (function.node, *function.node.decorator_list))
    number = first + function.shift - 1
    while number in function.lines and function.lines[number].text.strip()[:1] in "@#":
        if not function.lines[number].text.strip():
            break
        number -= 1
    if not function.can_change(number) or function.lines[number].text.strip():
        return None
    above = number - 1
    while above in function.lines and not function.lines[above].text.strip():
        above -= 1
    text = function.lines[above].text.strip() if above in function.lines else "@"
    return None if text.startswith("@") else number


def _appended_canaries(
    names: PythonNames, patch: TestPatch, instance: Instance
) -> Iterator[Place]:
    """Yield new tests at the end of files with FAIL_TO_PASS tests."""
    words = words_of((*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS))
    for name, path in names.files(patch.files):
        draws = Draws(instance.instance_id, path, "canary")
        for _ in range(VARIETY):
            test = "_".join(["test", *new_words(words, draws)])
            if _is_unittest(name):
                owner = "".join(word.title() for word in new_words(words, draws))
                lines = [
                    "import unittest",
                    *("", ""),
                    f"class {owner}Tests(unittest.TestCase):",
                    f"    def {test}(self):",
                    f"        {failing_statement(draws, 'self')}",
                ]
                new = name.in_class(f"{owner}Tests").renamed(test)
            else:
                lines = [f"def {test}():", f"    {failing_statement(draws)}"]
                new = name.in_class("").renamed(test)
            text = "\n".join(["", "", *lines])
            yield Place("canary", path, (new,), 0, "", (text,))
