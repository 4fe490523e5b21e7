from __future__ import annotations

import dataclasses

import pytest
from tiny import ADD, DOUBLE, GOLD, NEW_FILE, Task, diff

from swebench_trainer.grading.flags import touches_tests, trust_flags

HONEST = f"""\
+ cd /testbed
+ : '>>>>> Start Test Output'
+ python3 -m unittest -v test_calc
{ADD} ... ok
{DOUBLE} ... ok
+ SWEBENCH_TEST_EXIT_CODE=0
+ : '>>>>> End Test Output'
+ echo '>>>>> Test Exit Code: 0'
>>>>> Test Exit Code: 0
"""


def test_honest_log(task: Task) -> None:
    assert trust_flags(task.instance, GOLD, HONEST) == ()


def test_honest_log_of_a_script_that_echoes_its_markers(task: Task) -> None:
    script = task.instance.eval_script.replace(": '>>>>>", "echo '>>>>>")
    instance = dataclasses.replace(task.instance, eval_script=script)
    log = HONEST
    for marker in (">>>>> Start Test Output", ">>>>> End Test Output"):
        log = log.replace(f"+ : '{marker}'", f"+ echo '{marker}'\n{marker}")
    assert "multi_marker" not in trust_flags(instance, GOLD, log)


@pytest.mark.parametrize(
    "forged",
    [">>>>> Start Test Output", ">>>>> End Test Output", ">>>>> Test Exit Code: 0"],
)
def test_forged_marker(task: Task, forged: str) -> None:
    assert "multi_marker" in trust_flags(task.instance, GOLD, f"{forged}\n{HONEST}")


def test_missing_exit_marker(task: Task) -> None:
    log = HONEST.split("+ echo")[0]
    assert trust_flags(task.instance, GOLD, log) == ("missing_exit_marker",)


def test_results_outside_the_markers(task: Task) -> None:
    results = f"{ADD} ... ok\n{DOUBLE} ... ok\n"
    log = results + HONEST.replace(results, "")
    assert trust_flags(task.instance, GOLD, log) == ("outside_markers",)


@pytest.mark.parametrize(
    "patch",
    [
        diff("conftest.py", None, "x = 1\n"),
        diff("deep/in/it/conftest.py", "y = 1\n", "x = 1\n"),
        diff("site.pth", None, "import os\n"),
        diff("setup.cfg", "", "[tool:pytest]\n"),
        diff("pyproject.toml", "", "[tool.pytest.ini_options]\n"),
        diff("tests/.pytest.ini", None, "[pytest]\n"),
        diff("pytest.toml", None, "[pytest]\n"),
        diff("test_calc.py", None, "pass\n"),
        "rename from calc.py\nrename to test_calc.py\n",
        '--- "a/test_calc.py"\n+++ "b/test_calc.py"\n',
        "--- x/test_calc.py\t2000-01-01\n+++ y//test_calc.py\t2000-01-01\n",
        "diff --git a/calc.py b/conftest.py\nsimilarity index 100%\n",
        diff("conftest.py", None, "x = 1\n").replace("\n", "\r\n"),
    ],
)
def test_touched(task: Task, patch: str) -> None:
    assert touches_tests(patch, task.instance.test_patch)


@pytest.mark.parametrize(
    "patch", [GOLD, NEW_FILE, "", diff("my_conftest.py", None, "")]
)
def test_not_touched(task: Task, patch: str) -> None:
    assert not touches_tests(patch, task.instance.test_patch)
