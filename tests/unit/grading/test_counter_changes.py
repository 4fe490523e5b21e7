"""Changed tests: derived scripts differ in single literals and keep every line number."""

import dataclasses
import os
import subprocess
import sys

import pytest
from swebench.harness.log_parsers.python import parse_log_django, parse_log_pytest

from swebench_trainer.grading.counter.changes import (
    derived_instance,
    proposed_changes,
)
from swebench_trainer.grading.counter.scripts import TestScript
from swebench_trainer.grading.counter.test_files import TestPatch
from swebench_trainer.types import Instance, Strength

PATCH = """\
diff --git a/tests/test_area.py b/tests/test_area.py
--- a/tests/test_area.py
+++ b/tests/test_area.py
@@ -10,4 +10,14 @@ def test_width():
     box = Box(4, 5)
     assert box.width == 4

+
+def test_area():
+    box = Box(4, 5)
+    assert box.area == 20
+
+
+def test_name():
+    assert Box(4, 5).name == "four by five"
+    assert 1 < Box(4, 5).depth
+

"""
SCRIPT = f"""\
#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout 0123456 tests/test_area.py
git apply -v - <<'EOF_114329324912'
{PATCH}
EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_area.py
: '>>>>> End Test Output'
git checkout 0123456 tests/test_area.py
"""
INSTANCE = Instance(
    instance_id="o__box-1",
    repo="o/box",
    base_commit="0123456",
    problem_statement="The area is wrong.",
    patch="",
    test_patch=PATCH,
    eval_script=SCRIPT,
    log_parser="parse_log_pytest",
    FAIL_TO_PASS=("tests/test_area.py::test_area", "tests/test_area.py::test_name"),
    PASS_TO_PASS=("tests/test_area.py::test_width",),
)


def changed_lines(instance, change):
    before = instance.eval_script.split("\n")
    after = change.eval_script.split("\n")
    assert len(before) == len(after)
    return [(old, new) for old, new in zip(before, after, strict=True) if old != new]


def of_strength(strength, instance=INSTANCE):
    changes = proposed_changes(instance)
    return [change for change in changes if change.strength is strength]


def test_an_expectation_changes_one_literal_of_an_equality():
    found = of_strength(Strength.EXPECTATION)
    assert len(found) > 5
    for change in found:
        lines = changed_lines(INSTANCE, change)
        assert len(lines) == len(change.tests)
        assert change.files == ("tests/test_area.py",)
        for old, new in lines:
            assert old.split("==")[0] == new.split("==")[0]
            assert "==" in old


def test_the_first_change_is_in_all_tests_and_others_are_in_single_ones():
    tests = [change.tests for change in of_strength(Strength.EXPECTATION)]
    assert tests[0] == INSTANCE.FAIL_TO_PASS
    assert {("tests/test_area.py::test_area",), ("tests/test_area.py::test_name",)} <= {
        *tests
    }


def test_changes_are_the_same_each_time_and_have_their_own_keys():
    first, second = proposed_changes(INSTANCE), proposed_changes(INSTANCE)
    assert first == second
    assert len({change.key for change in first}) == len(first)


def test_a_derived_instance_expects_the_changed_tests_and_all_others():
    change = next(c for c in proposed_changes(INSTANCE) if len(c.tests) == 1)
    derived = derived_instance(INSTANCE, change)
    assert change.tests == derived.FAIL_TO_PASS
    assert {*derived.FAIL_TO_PASS, *derived.PASS_TO_PASS} == {
        *INSTANCE.FAIL_TO_PASS,
        *INSTANCE.PASS_TO_PASS,
    }
    assert derived.eval_script == change.eval_script
    assert derived.test_patch in derived.eval_script
    assert derived.test_patch != INSTANCE.test_patch


def test_an_instance_without_a_test_patch_in_its_script_has_no_changes():
    script = "#!/bin/bash\n: '>>>>> Start Test Output'\npytest\n"
    assert proposed_changes(dataclasses.replace(INSTANCE, eval_script=script)) == []


@pytest.mark.parametrize("on_top", [False, True])
def test_git_applies_the_changed_patch(tmp_path, on_top):
    script = TestScript.of(INSTANCE)
    patch = TestPatch(script.patch)
    before = "".join(f"# {n}\n" for n in range(1, 10))
    before += "    box = Box(4, 5)\n    assert box.width == 4\n\n\n"
    place = tmp_path / "tests/test_area.py"
    place.parent.mkdir()
    place.write_text(before)
    edits = {"tests/test_area.py": {16: "    assert box.area == 21", 11: "    pass"}}

    def apply(text):
        subprocess.run(
            ["git", "apply", "-"], cwd=tmp_path, input=text.encode(), check=True
        )

    if on_top:
        apply(script.patch)
        apply(patch.on_top(edits))
    else:
        apply(patch.edited(edits))
    lines = place.read_text().split("\n")
    assert lines[15] == "    assert box.area == 21"
    assert lines[10] == "    pass"
    assert lines[14] == "    box = Box(4, 5)"


def instance_of(source, *failing, passing=(), path="tests/test_box.py"):
    """An instance whose test patch adds one file."""
    lines = source.rstrip("\n").split("\n")
    rows = "\n".join(f"+{line}" for line in lines)
    patch = (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n"
        f"+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n{rows}\n"
    )
    return dataclasses.replace(
        INSTANCE,
        test_patch=patch,
        eval_script=SCRIPT.replace(PATCH, patch).replace("tests/test_area.py", path),
        FAIL_TO_PASS=failing,
        PASS_TO_PASS=tuple(passing),
    )


def new_lines(instance, strength):
    return {
        new[1:].strip()
        for change in of_strength(strength, instance)
        for _, new in changed_lines(instance, change)
    }


def test_of(*body):
    lines = "\n".join(f"    {line}" for line in body)
    return instance_of(f"def test_it():\n{lines}\n", "tests/test_box.py::test_it")


test_of.__test__ = False


@pytest.mark.parametrize(
    ("assertion", "kept"),
    [
        ("assert area(3, 4) == 12", "assert area(3, 4) == "),
        ("assert 12 == area(3, 4)", " == area(3, 4)"),
        ("assert area(3) == (12, x), 'twelve'", ", x), 'twelve'"),
        ("assert is_big(3) is True", "assert is_big(3) is "),
        ("assert a == 'x\\ny' and b < 3", "\\n"),
        ("assert cells[0] == {'key': 'value'}", "assert cells[0] == {'key': '"),
        ("assert root(2) == sqrt(8) + x[0]", ") + x[0]"),
        ("self.assertEqual(area(3), 12, 'area')", "self.assertEqual(area(3), "),
        ("self.assertEqual(12, area(3))", ", area(3))"),
        ("self.assertTrue(box.is_big(3))", "(box.is_big(3))"),
        ("hook.assert_called_once_with('open', 3)", "hook.assert_called_once_with('"),
        ("await self.assertEqual(await area(3), 12)", "(await area(3), "),
        ("assert text() == 'one ' 'two'", "assert text() == '"),
        ("assert size('é', 1) == 'é2'", "assert size('é', 1) == 'é"),
    ],
)
def test_only_the_expected_side_of_an_equality_changes(assertion, kept):
    found = new_lines(test_of(assertion), Strength.EXPECTATION)
    assert found
    assert assertion not in found
    assert all(kept in line for line in found)


@pytest.mark.parametrize(
    "body",
    [
        "assert area(3) > 12",
        "assert area(3) != 12",
        "assert area(3) == area(12)",
        "assert area(3) == pytest.approx(12, abs=1)",
        "assert 'box' in name(3)",
        "assert f'{x}' == name()",
        "assert x == 3 or x == 4",
        "self.assertAlmostEqual(area(3), 12)",
        "self.assertTrue(area(3) < 12)",
        "self.assertRegex(name(3), 'box')",
        "self.assertEqual(area(3), area(12))",
        "with pytest.raises(ValueError, match='box'): assert area(3) == 12",
        "with self.subTest(side=3): self.assertEqual(area(3), 12)",
    ],
)
def test_inputs_and_bounds_never_change(body):
    assert new_lines(test_of(body), Strength.EXPECTATION) == set()


def test_variables_change_if_they_hold_nothing_but_an_expected_value():
    only = test_of("expected = ['a', 'b']", "assert f(3) == expected")
    assert all(
        line.startswith("expected = ['") for line in new_lines(only, "expectation")
    )
    also_input = test_of("value = 3", "assert f(value) == value")
    assert new_lines(also_input, "expectation") == set()


def test_files_indented_with_tabs_are_changed():
    source = "class TestBox:\n\tdef test_a(self):\n\t\tassert a() == 3\n\n"
    source += "\tdef test_b(self):\n\t\tpass\n"
    names = [f"tests/test_box.py::TestBox::test_{name}" for name in "ab"]
    instance = instance_of(source, *names)
    assert {change.strength for change in proposed_changes(instance)} == {*Strength}
    canary = of_strength(Strength.CANARY, instance)[0]
    ((_, new),) = changed_lines(instance, canary)
    assert new.startswith("+\tdef test_")


RUN_BY_PYTEST = '''\
import contextlib

import pytest
from swebench.harness.log_parsers.python import parse_log_django, parse_log_pytest


def test_plain():
    """It has a docstring."""
    x = [1,
         2]  # a comment
    assert x == [1, 2]


@pytest.mark.parametrize("n", [1, 2])
def test_each(n): assert n == n


def test_only_raises():
    with pytest.raises(ValueError):
        int("x")


class TestMore:
    def helper(self):
        return 5

    def test_early(self):
        if self.helper():
            y = 4
        assert y == 4
        return None

    def test_loop(self):
        for n in range(2):
            assert n < 5

    def test_other(self):
        assert self.helper() == 5
'''


def put_in_place(folder, change):
    derived = dataclasses.replace(INSTANCE, eval_script=change.eval_script)
    patch = TestScript.of(derived).patch
    subprocess.run(["git", "apply", "-"], cwd=folder, input=patch.encode(), check=True)


def test_changed_tests_fail_and_all_others_pass_under_pytest(tmp_path):
    names = [
        *("test_plain", "test_each[1]", "test_each[2]", "test_only_raises"),
        *("TestMore::test_early", "TestMore::test_loop", "TestMore::test_other"),
    ]
    derived = []
    for strength in Strength:
        path = f"tests/test_{strength}.py"
        *failing, other = [f"{path}::{name}" for name in names]
        instance = instance_of(RUN_BY_PYTEST, *failing, passing=[other], path=path)
        change = of_strength(strength, instance)[0]
        if strength is Strength.SABOTAGE:
            assert set(change.tests) == set(failing)
        put_in_place(tmp_path, change)
        derived.append(derived_instance(instance, change))
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider"]
    log = subprocess.run(
        [*command, "tests"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    ).stdout
    statuses = parse_log_pytest(log, None)
    for instance in derived:
        assert {statuses[name] for name in instance.FAIL_TO_PASS} == {"FAILED"}
        assert {statuses[name] for name in instance.PASS_TO_PASS} == {"PASSED"}


RUN_BY_UNITTEST = '''\
import unittest


class Base:
    def test_shared(self):
        self.assertEqual(len("abc"), 3)


class OneTests(Base, unittest.TestCase):
    def test_told(self):
        """It is told by its docstring."""
        self.assertIs(bool(3), True)

    def test_loop(self):
        for n in range(2):
            with self.subTest(n=n):
                self.assertEqual(n, n)


class TwoTests(Base, unittest.TestCase):
    def test_other(self):
        self.assertTrue(3)
'''


def test_changed_tests_fail_and_all_others_pass_under_unittest(tmp_path):
    names = [
        "test_shared (test_box.OneTests.test_shared)",
        "test_shared (test_box.TwoTests.test_shared)",
        "It is told by its docstring.",
        "test_loop (test_box.OneTests.test_loop)",
    ]
    other = "test_other (test_box.TwoTests.test_other)"
    instance = instance_of(RUN_BY_UNITTEST, *names, passing=[other], path="test_box.py")
    for strength, changed in [
        (Strength.EXPECTATION, set(names[:3])),
        (Strength.SABOTAGE, set(names)),
    ]:
        change = of_strength(strength, instance)[0]
        assert set(change.tests) == changed
        (tmp_path / "test_box.py").unlink(missing_ok=True)
        derived = derived_instance(instance, change)
        put_in_place(tmp_path, change)
        log = subprocess.run(
            [sys.executable, "-m", "unittest", "-v", "test_box"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        ).stderr
        statuses = parse_log_django(log, None)
        assert {statuses[name] for name in derived.FAIL_TO_PASS} == {"FAILED"}
        assert {statuses[name] for name in derived.PASS_TO_PASS} == {"PASSED"}


def test_scripts_that_check_tests_out_get_a_small_patch():
    script = SCRIPT.partition("git apply")[0] + SCRIPT.partition(
        "EOF_114329324912\n: "
    )[2].replace("'>>>>> Start", ": '>>>>> Start", 1)
    instance = dataclasses.replace(INSTANCE, eval_script=script)
    change = proposed_changes(instance)[0]
    before, _, rest = change.eval_script.partition(
        "git apply -v - <<'EOF_114329324912'\n"
    )
    patch, _, after = rest.partition("EOF_114329324912\n")
    assert before + after == script
    assert before.endswith("git checkout 0123456 tests/test_area.py\n")
    assert patch.count("\n-") == patch.count("\n+")
    assert derived_instance(instance, change).test_patch == PATCH


def test_derived_scripts_say_nothing_of_their_purpose():
    for change in proposed_changes(INSTANCE):
        new = " ".join(new for _, new in changed_lines(INSTANCE, change)).lower()
        assert not any(word in new for word in ("counter", "canary", "sabotage"))


def test_no_change_keeps_the_size_of_a_file():
    instance = test_of("assert a is True", "assert b is False")
    for change in proposed_changes(instance):
        assert len(change.eval_script) != len(instance.eval_script)
