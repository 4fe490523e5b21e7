"""Changes of Python tests: pytest, unittest, Django's and sympy's runners."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from swebench_trainer.grading.counter.draws import Draws
from swebench_trainer.grading.counter.places import VARIETY, Place
from swebench_trainer.grading.counter.python_expectations import expectations
from swebench_trainer.grading.counter.python_names import PythonNames
from swebench_trainer.grading.counter.python_source import (
    VisibleFunction,
    visible_functions,
)
from swebench_trainer.grading.counter.test_files import TestPatch
from swebench_trainer.types import Instance, Strength


def places(patch: TestPatch, instance: Instance, strength: Strength) -> Iterator[Place]:
    """Yield the places of a strength in the Python tests of an instance."""
    if strength is not Strength.EXPECTATION:
        return
    for function, names in _official_functions(patch, PythonNames(instance)):
        for span in expectations(function.node, function.source):
            number = span.line + function.shift
            if not function.can_change(number):
                continue
            text = function.lines[number].text
            draws = Draws(instance.instance_id, function.path, number, span.start)
            texts = [span.replaced(text, draws) for _ in range(VARIETY)]
            known = tuple(dict.fromkeys(new for new in texts if new is not None))
            if known:
                yield Place(function.key, function.path, names, number, known)


def _official_functions(
    patch: TestPatch, names: PythonNames
) -> Iterator[tuple[VisibleFunction, tuple[str, ...]]]:
    """Yield the visible functions with FAIL_TO_PASS tests, and the tests' names."""
    for path, file in patch.files.items():
        if not path.endswith(".py"):
            continue
        for function in visible_functions(file, set(names.functions())):
            docstring = ast.get_docstring(function.node) if function.whole else None
            found = names.of_function(
                path, function.owner, function.name, docstring or ""
            )
            if found:
                yield function, found[0]
