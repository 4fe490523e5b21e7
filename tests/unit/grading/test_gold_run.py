from __future__ import annotations

import dataclasses

from tiny import Task

from swebench_trainer.contracts import GoldRun
from swebench_trainer.grading.official import TEST_LOG
from swebench_trainer.grading.sandbox import Evidence, Execution, write_execution
from swebench_trainer.grading.trust.log_flags import gold_run

LOG = """\
>>>>> Start Test Output
PASSED test_calc.py::test_add
FAILED test_calc.py::test_network - no network
ERROR test_calc.py::test_display
SKIPPED [1] test_calc.py:3: only on Windows
XFAIL test_calc.py::test_later
FAILED test_calc.py::test_add - once
>>>>> End Test Output
"""


def test_a_gold_run_is_read_from_its_logs(task: Task) -> None:
    folder = task.folder / "gold"
    folder.mkdir()
    (folder / TEST_LOG).write_text(LOG)
    seconds = {"start": 1.0, "apply": 0.5, "test": 7.5}
    evidence = Evidence(("/root/.npm/x",))
    write_execution(Execution(0, evidence=evidence, seconds=seconds), folder)
    names = ("test_calc.py::test_add", "test_calc.py::test_absent")
    instance = dataclasses.replace(
        task.instance,
        log_parser="parse_log_pytest",
        FAIL_TO_PASS=names,
        PASS_TO_PASS=(),
    )
    assert gold_run(instance, folder) == GoldRun(
        seconds=7.5,
        failed=frozenset(
            f"test_calc.py::test_{name}" for name in ("network", "display", "add")
        ),
        skipped=frozenset({"test_calc.py::test_later"}),
        changed=frozenset({"/root/.npm/x"}),
        without_result=frozenset({"test_calc.py::test_absent"}),
        contradicted=frozenset({"test_calc.py::test_add"}),
    )


def test_a_gold_run_without_evidence_explains_no_changes(task: Task) -> None:
    folder = task.folder / "gold"
    folder.mkdir()
    (folder / TEST_LOG).write_text("cut off")
    write_execution(Execution(0, timed_out=True, seconds={"test": 9.0}), folder)
    found = gold_run(task.instance, folder)
    assert found and (found.seconds, found.changed) == (9.0, frozenset())


def test_a_run_without_tests_is_not_a_gold_run(task: Task) -> None:
    folder = task.folder / "gold"
    folder.mkdir()
    assert gold_run(task.instance, folder) is None
    write_execution(Execution(10, seconds={"start": 1.0, "apply": 0.5}), folder)
    assert gold_run(task.instance, folder) is None
