from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import GOLD, Task

from swebench_trainer.grading.official import (
    final_report,
    harness_row,
    judge,
    status_of,
)
from swebench_trainer.types import Instance, Status, Verdict

RAN = {"patch_successfully_applied": True, "infra_failure": False}
VERDICTS = {
    "a": (Status.RESOLVED, {**RAN, "resolved": True}),
    "b": (Status.UNRESOLVED, {**RAN, "resolved": False}),
    "c": (Status.NO_PATCH, {}),
    "d": (Status.NOT_APPLIED, {}),
    "e": (Status.MALFORMED, {}),
    "f": (Status.TIMEOUT, {}),
    "g": (Status.OOM, {}),
    "h": (Status.INFRA_ERROR, {}),
}


def instances(names: str) -> list[Instance]:
    return [Instance(name, "r", "c", "", "") for name in names]


def test_the_final_report_counts_every_instance() -> None:
    verdicts = [
        Verdict(name, 0, "m", status, report)
        for name, (status, report) in VERDICTS.items()
    ]
    report = final_report(instances("abcdefghi"), verdicts)
    assert report["total_instances"] == 9
    assert report["submitted_instances"] == 8
    assert report["resolved_ids"] == ["a"]
    assert report["unresolved_ids"] == ["b"]
    assert report["completed_ids"] == ["a", "b"]
    assert report["empty_patch_ids"] == ["c"]
    assert report["error_ids"] == list("defgh")
    assert report["incomplete_ids"] == ["i"]
    assert report["infra_failure_ids"] == ["g", "h"]
    assert report["ambiguous_failure_ids"] == ["f"]


def test_the_final_report_has_the_keys_and_lists_of_the_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from swebench.harness.reporting import make_run_report

    monkeypatch.chdir(tmp_path)
    chosen = {name: VERDICTS[name] for name in "abcd"}
    predictions = {}
    for name, (status, report) in chosen.items():
        text = "" if status is Status.NO_PATCH else "patch"
        predictions[name] = {
            "instance_id": name,
            "model_name_or_path": "m",
            "model_patch": text,
        }
        if report:
            logs = tmp_path / "logs" / "run_evaluation" / "run" / "m" / name
            logs.mkdir(parents=True)
            (logs / "report.json").write_text(json.dumps({name: report}))
    dataset = [{"instance_id": name} for name in "abcdx"]
    theirs = json.loads(make_run_report(predictions, dataset, "run").read_text())
    verdicts = [Verdict(name, 0, "m", *chosen[name]) for name in chosen]
    ours = final_report(instances("abcdx"), verdicts)
    assert ours == theirs
    assert list(ours) == list(theirs)


def test_the_final_report_rejects_two_predictions_of_one_instance() -> None:
    verdict = Verdict("a", 0, "m", Status.RESOLVED)
    with pytest.raises(ValueError, match="one prediction per instance"):
        final_report(instances("a"), [verdict, verdict])


def test_a_harness_row_gives_the_spec_of_the_harness(task: Task) -> None:
    from swebench.harness.utils import make_test_spec

    spec = make_test_spec(harness_row(task.instance))
    assert list(task.instance.FAIL_TO_PASS) == spec.FAIL_TO_PASS
    assert "SWEBENCH_TEST_EXIT_CODE=$?" in spec.eval_script


@pytest.mark.parametrize(
    ("log", "status"),
    [
        ("Cannot allocate memory\n", Status.INFRA_ERROR),
        ("no tests ran\n", Status.UNRESOLVED),
        ("", Status.UNRESOLVED),
    ],
)
def test_a_log_without_results_gets_a_status(
    task: Task, tmp_path: Path, log: str, status: Status
) -> None:
    path = tmp_path / "test_output.txt"
    path.write_text(log)
    report = judge(task.instance, GOLD, path)
    assert status_of(report)[0] is status
    written = json.loads((tmp_path / "report.json").read_text())
    assert written == {task.instance.instance_id: report}
