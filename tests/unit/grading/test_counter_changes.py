"""Changed tests: derived scripts differ in single literals and keep every line number."""

import dataclasses
import subprocess

import pytest

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
