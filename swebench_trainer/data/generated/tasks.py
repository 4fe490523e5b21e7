"""Tasks: a module with a fault, the issue about it, and the tests of both."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from string import Template

from swebench_trainer.data.generated.functions import (
    Case,
    Faulty,
    Form,
    Function,
    draw_cases,
    draw_fault,
    draw_function,
    every_form,
    vocabulary,
)
from swebench_trainer.patches.lenient_diff import lines_by_file
from swebench_trainer.types import Instance

HELDOUT_FROM = "2001-01-01"
"""Day from which on the held-out tasks were created; all others are older."""
_TRAIN_FROM = "2000-01-01"

LARGEST = 3
"""Functions of a module, at most; each is of another form."""
_TESTED = 4
"""Calls that a test makes, where there are so many."""
_ATTEMPTS = 1000
"""How often a task is drawn anew before that is given up."""
_SHORT = 32
"""Characters that say little; the leakage guard has a rule of this kind too."""


@dataclass(frozen=True)
class Task:
    """A repair task.

    Attributes:
        kind: Of the fault.
        files: The repository, by path.
        things: What another task could have in common with it: the functions as they
            should be, the issue, and what the patch adds if that says much.
    """

    instance: Instance
    kind: str
    files: Mapping[str, str]
    things: frozenset[str]


def draw_tasks(
    seed: int,
    heldout: int,
    graded: int,
    count: int,
    forms: Sequence[Form] = (),
    tickets: float = 0,
) -> Iterator[Task]:
    """The held-out tasks, then those to train on, which share nothing with them.

    Held-out tasks share nothing among each other either. Each task is drawn by its
    number, so that a larger count adds some and changes none.

    Args:
        seed: Of everything.
        heldout: How many are held out.
        graded: How many of the others can be graded too.
        count: How many others there are.
        forms: Of the functions; without, every form.
        tickets: Share of the functions whose docstring names a ticket.

    Raises:
        ValueError: So many held-out tasks that share nothing cannot be drawn.
    """
    forms = forms or every_form()
    taken: set[str] = set()
    for number in range(heldout + count):
        created = HELDOUT_FROM if number < heldout else _TRAIN_FROM
        for attempt in range(_ATTEMPTS):
            draw = Random(f"{seed} {number} {attempt}")  # noqa: S311 - no secret
            module = _draw_module(draw, forms, tickets)
            task = _draw_task(draw, module, number, created)
            if task and taken.isdisjoint(task.things):
                break
        else:
            raise ValueError(f"{heldout} held-out tasks leave nothing to draw from")
        if number < heldout:
            taken |= task.things
        if number < heldout + graded:
            yield task
        else:
            yield _without_tests(task)


def _draw_task(draw: Random, module: _Module, number: int, created: str) -> Task | None:
    """A task; `None` if what was drawn makes none: its fault does not show, say."""
    faulty = draw_fault(draw, draw.choice(module.functions))
    if faulty is None or len(set(module.names)) < len(module.names):
        return None
    good, bad = module.code(), module.code(faulty)
    tests = [
        _test(function.name, cases)
        for function in module.functions
        if (cases := _passing(draw, function, faulty))
    ]
    if not tests:
        return None
    shown = _test(f"{faulty.function.name}_issue", _some(draw, faulty.failing))
    before = module.test_code(tests)
    files = {module.path: bad, module.test_path: before}
    test_patch = _diff(module.test_path, before, module.test_code([*tests, shown]))
    commit = commit_id(files)
    issue = _issue(draw, faulty)
    instance = Instance(
        instance_id=f"generated__{module.theme}-{number}",
        repo=f"generated/{module.theme}-{number}",
        base_commit=commit,
        problem_statement=issue,
        patch=_diff(module.path, bad, good, context=1),
        test_patch=test_patch,
        version="1",
        eval_script=_eval_script(commit, module.test_path, test_patch),
        log_parser="parse_log_django",
        FAIL_TO_PASS=(module.test_name(shown),),
        PASS_TO_PASS=tuple(map(module.test_name, tests)),
        created_at=created,
        language="python",
    )
    functions = (function.code for function in module.functions)
    things = {*functions, issue, *_telling(instance.patch)}
    return Task(instance, faulty.kind, files, frozenset(things))


@dataclass(frozen=True)
class _Test:
    """A test method: its name, and its calls."""

    name: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"    def {self.name}(self):", *self.lines))


@dataclass(frozen=True)
class _Module:
    """A module of several functions, and the module with its tests."""

    theme: str
    functions: tuple[Function, ...]

    @property
    def names(self) -> list[str]:
        return [function.name for function in self.functions]

    @property
    def path(self) -> str:
        return f"{self.theme}.py"

    @property
    def test_path(self) -> str:
        return f"test_{self.theme}.py"

    def code(self, faulty: Faulty | None = None) -> str:
        """As it should be, or with a fault in one function."""
        codes = (
            faulty.code if faulty and function is faulty.function else function.code
            for function in self.functions
        )
        return "\n\n".join((f'"""Functions about {self.theme}."""\n', *codes))

    def test_code(self, tests: Sequence[_Test]) -> str:
        """The module with the tests."""
        return (
            f"import unittest\n\nfrom {self.theme} import {', '.join(self.names)}\n\n\n"
            f"class {self._case}(unittest.TestCase):\n" + "\n\n".join(map(str, tests))
        ) + "\n"

    def test_name(self, test: _Test) -> str:
        """What `unittest` calls a test."""
        return f"{test.name} (test_{self.theme}.{self._case}.{test.name})"

    @property
    def _case(self) -> str:
        return f"{self.theme.title()}Test"


def _draw_module(draw: Random, forms: Sequence[Form], tickets: float) -> _Module:
    chosen = draw.sample(forms, draw.randint(2, LARGEST))
    theme = draw.choice(sorted(vocabulary()["things"].values()))
    functions = (draw_function(draw, form, tickets) for form in chosen)
    return _Module(theme, tuple(functions))


def _passing(draw: Random, function: Function, faulty: Faulty) -> Sequence[Case]:
    """Calls that the fault does not change."""
    if function is faulty.function:
        return _some(draw, faulty.passing)
    return _some(draw, draw_cases(draw, function, function.code, _TESTED))


def _some(draw: Random, cases: Sequence[Case]) -> Sequence[Case]:
    return draw.sample(cases, min(_TESTED, len(cases)))


def _test(name: str, cases: Sequence[Case]) -> _Test:
    lines = (f"        self.assertEqual({case.call}, {case.want!r})" for case in cases)
    return _Test(f"test_{name}", tuple(lines))


def _issue(draw: Random, faulty: Faulty) -> str:
    """What somebody says who has seen the fault."""
    case = faulty.failing[0]
    if case.got.error:
        seen = "raises"
    else:
        seen = "nothing" if case.got.value is None else "returns"
    text = draw.choice(vocabulary()["issues"][seen])
    told = {"call": case.call, "want": repr(case.want), "got": repr(case.got.value)}
    return Template(text).substitute(told, f=faulty.function.name, error=case.got.error)


def _diff(path: str, old: str, new: str, context: int = 3) -> str:
    """A patch as git writes it; answers are as long as its context makes them."""
    lines = difflib.unified_diff(
        old.splitlines(keepends=True),
        new.splitlines(keepends=True),
        f"a/{path}",
        f"b/{path}",
        n=context,
    )
    return f"diff --git a/{path} b/{path}\n" + "".join(lines)


def _telling(patch: str) -> Iterator[str]:
    """What a patch adds, unless it is short: `return total` is in many functions."""
    (file,) = lines_by_file(patch)
    added = "".join(line[1:].strip() for line in file.lines if line[0] == "+")
    if len(added) > _SHORT:
        yield added


def _eval_script(commit: str, path: str, test_patch: str) -> str:
    """The script that grades, in the manner of SWE-bench's."""
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
    """A task to train on, and not to grade."""
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
    """The id of the commit of some files, as the grader makes it of a snapshot."""
    blobs = {path: _object_id("blob", text.encode()) for path, text in files.items()}
    entries = (
        f"100644 {path}\0".encode() + bytes.fromhex(blobs[path])
        for path in sorted(blobs)
    )
    tree = _object_id("tree", b"".join(entries))
    who = "swebench-trainer <swebench-trainer@localhost> 946684800 +0000"
    text = f"tree {tree}\nauthor {who}\ncommitter {who}\n\nbase\n"
    return _object_id("commit", text.encode())


def _object_id(kind: str, content: bytes) -> str:
    return hashlib.sha1(  # noqa: S324 - git's own
        f"{kind} {len(content)}\0".encode() + content
    ).hexdigest()
