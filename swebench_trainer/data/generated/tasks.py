"""Tasks: a module with a bug, an issue about it, and tests."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from string import Template

from swebench_trainer.data.generated.functions import (
    BuggyFunction,
    Case,
    Form,
    Function,
    draw_bug,
    draw_cases,
    draw_function,
    every_form,
    vocabulary,
)
from swebench_trainer.patches.lenient_diff import lines_by_file
from swebench_trainer.store.draw import generator
from swebench_trainer.types import Instance

HELDOUT_FROM = "2001-01-01"
"""Creation date of the held-out tasks; all others are older."""
_TRAIN_FROM = "2000-01-01"

LARGEST = 3
"""Maximum number of functions in a module, each of a different form."""
_TESTED = 4
"""Maximum number of calls in a test."""
_ATTEMPTS = 1000
"""Maximum attempts to draw a task."""
_SHORT = 32
"""Characters. Shorter changes may repeat, as in the leakage check."""


@dataclass(frozen=True)
class Task:
    """A repair task.

    Attributes:
        kind: Kind of the bug.
        files: Files of the repository by path.
        parts: Texts that no held-out task may share: the correct functions, the issue,
            and the lines that the patch adds if they are long enough.
    """

    instance: Instance
    kind: str
    files: Mapping[str, str]
    parts: frozenset[str]


def draw_tasks(
    seed: int,
    heldout: int,
    graded: int,
    count: int,
    forms: Sequence[Form] = (),
    tickets: float = 0,
) -> Iterator[Task]:
    """Generate held-out tasks, then training tasks that share nothing with them.

    Held-out tasks share nothing with each other either. Each task has its own seed, so
    a larger count adds tasks without changing others.

    Args:
        seed: Seed of all tasks.
        heldout: Number of held-out tasks.
        graded: Number of training tasks with tests.
        count: Number of training tasks.
        forms: Forms of the functions; empty means all.
        tickets: Share of the functions with a ticket number in the docstring.

    Raises:
        ValueError: Not enough distinct held-out tasks exist.
    """
    forms = forms or every_form()
    taken: set[str] = set()
    for number in range(heldout + count):
        created = HELDOUT_FROM if number < heldout else _TRAIN_FROM
        for attempt in range(_ATTEMPTS):
            rng = generator(seed, number, attempt)
            module = _draw_module(rng, forms, tickets)
            task = _draw_task(rng, module, number, created)
            if task and taken.isdisjoint(task.parts):
                break
        else:
            raise ValueError(f"{heldout} held-out tasks exhaust the distinct tasks")
        if number < heldout:
            taken |= task.parts
        if number < heldout + graded:
            yield task
        else:
            yield _without_tests(task)


def _draw_task(rng: Random, module: _Module, number: int, created: str) -> Task | None:
    """A random task; `None` if the draw is unusable, such as a bug without symptoms."""
    buggy = draw_bug(rng, rng.choice(module.functions))
    if buggy is None or len(set(module.names)) < len(module.names):
        return None
    good, bad = module.code(), module.code(buggy)
    tests = [
        _test(function.name, cases)
        for function in module.functions
        if (cases := _passing(rng, function, buggy))
    ]
    if not tests:
        return None
    shown = _test(f"{buggy.function.name}_issue", _sample(rng, buggy.failing))
    path, test_path = f"{module.theme}.py", f"test_{module.theme}.py"
    before = module.test_code(tests)
    files = {path: bad, test_path: before}
    test_patch = _diff(test_path, before, module.test_code([*tests, shown]))
    commit = commit_id(files)
    issue = _issue(rng, buggy)
    instance = Instance(
        instance_id=f"generated__{module.theme}-{number}",
        repo=f"generated/{module.theme}-{number}",
        base_commit=commit,
        problem_statement=issue,
        patch=_diff(path, bad, good, context=1),
        test_patch=test_patch,
        version="1",
        eval_script=_eval_script(commit, test_path, test_patch),
        log_parser="parse_log_django",
        FAIL_TO_PASS=(module.test_name(shown),),
        PASS_TO_PASS=tuple(map(module.test_name, tests)),
        created_at=created,
        language="python",
    )
    functions = (function.code for function in module.functions)
    parts = {*functions, issue, *_long_additions(instance.patch)}
    return Task(instance, buggy.kind, files, frozenset(parts))


@dataclass(frozen=True)
class _Test:
    """A test method with its calls."""

    name: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"    def {self.name}(self):", *self.lines))


@dataclass(frozen=True)
class _Module:
    """A module of several functions and its test module."""

    theme: str
    functions: tuple[Function, ...]

    @property
    def names(self) -> list[str]:
        return [function.name for function in self.functions]

    def code(self, buggy: BuggyFunction | None = None) -> str:
        """The correct module, or the one with a buggy function."""
        codes = (
            buggy.code if buggy and function is buggy.function else function.code
            for function in self.functions
        )
        return "\n\n".join((f'"""Functions about {self.theme}."""\n', *codes))

    def test_code(self, tests: Sequence[_Test]) -> str:
        """The test module."""
        return (
            f"import unittest\n\nfrom {self.theme} import {', '.join(self.names)}\n\n\n"
            f"class {self._case}(unittest.TestCase):\n" + "\n\n".join(map(str, tests))
        ) + "\n"

    def test_name(self, test: _Test) -> str:
        """The name that `unittest` reports for a test."""
        return f"{test.name} (test_{self.theme}.{self._case}.{test.name})"

    @property
    def _case(self) -> str:
        return f"{self.theme.title()}Test"


def _draw_module(rng: Random, forms: Sequence[Form], tickets: float) -> _Module:
    chosen = rng.sample(forms, rng.randint(2, LARGEST))
    theme = rng.choice(sorted(vocabulary()["things"].values()))
    functions = (draw_function(rng, form, tickets) for form in chosen)
    return _Module(theme, tuple(functions))


def _passing(rng: Random, function: Function, buggy: BuggyFunction) -> Sequence[Case]:
    """Calls whose result the bug does not change."""
    if function is buggy.function:
        return _sample(rng, buggy.passing)
    return _sample(rng, draw_cases(rng, function, function.code, _TESTED))


def _sample(rng: Random, cases: Sequence[Case]) -> Sequence[Case]:
    return rng.sample(cases, min(_TESTED, len(cases)))


def _test(name: str, cases: Sequence[Case]) -> _Test:
    lines = (f"        self.assertEqual({case.call}, {case.want!r})" for case in cases)
    return _Test(f"test_{name}", tuple(lines))


def _issue(rng: Random, buggy: BuggyFunction) -> str:
    """A bug report by a user."""
    case = buggy.failing[0]
    seen = "nothing" if case.got.value is None else "returns"
    if case.got.error:
        seen = "raises"
    text = rng.choice(vocabulary()["issues"][seen])
    values = {"call": case.call, "want": repr(case.want), "got": repr(case.got.value)}
    return Template(text).substitute(
        values, f=buggy.function.name, error=case.got.error
    )


def _diff(path: str, old: str, new: str, context: int = 3) -> str:
    """A patch in git's format; less context makes shorter answers."""
    lines = difflib.unified_diff(
        old.splitlines(keepends=True),
        new.splitlines(keepends=True),
        f"a/{path}",
        f"b/{path}",
        n=context,
    )
    return f"diff --git a/{path} b/{path}\n" + "".join(lines)


def _long_additions(patch: str) -> Iterator[str]:
    """The lines that a patch adds, unless short: `return total` is in many functions."""
    (file,) = lines_by_file(patch)
    added = "".join(line[1:].strip() for line in file.lines if line[0] == "+")
    if len(added) > _SHORT:
        yield added


def _eval_script(commit: str, path: str, test_patch: str) -> str:
    """The eval script, like SWE-bench's."""
    return f"""#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout {commit} {path}
git apply -v - <<'EOF_114329324912'
{test_patch}EOF_114329324912
: '>>>>> Start Test Output'
python3 -S -m unittest -v {path.removesuffix(".py")}
: '>>>>> End Test Output'
git checkout {commit} {path}
"""


def _without_tests(task: Task) -> Task:
    """A task for training only."""
    instance = replace(
        task.instance,
        test_patch="",
        eval_script="",
        log_parser="",
        FAIL_TO_PASS=(),
        PASS_TO_PASS=(),
    )
    return replace(task, instance=instance)


def commit_id(files: Mapping[str, str]) -> str:
    """The id of the commit that the grader creates from these files."""
    blobs = {path: _object_id("blob", text.encode()) for path, text in files.items()}
    entries = (
        f"100644 {path}\0".encode() + bytes.fromhex(blobs[path])
        for path in sorted(blobs)
    )
    tree = _object_id("tree", b"".join(entries))
    author = "swebench-trainer <swebench-trainer@localhost> 946684800 +0000"
    text = f"tree {tree}\nauthor {author}\ncommitter {author}\n\nbase\n"
    return _object_id("commit", text.encode())


def _object_id(kind: str, content: bytes) -> str:
    named = f"{kind} {len(content)}\0".encode() + content
    return hashlib.sha1(named, usedforsecurity=False).hexdigest()
