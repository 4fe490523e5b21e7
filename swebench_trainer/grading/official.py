"""Interface to the official harness, whose functions decide every verdict.

The log is always written to disk before it is judged, because the harness reads it in
text mode, which may differ from the bytes written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.grading.pro import parser_name
from swebench_trainer.types import Instance, Status, Verdict

if TYPE_CHECKING:
    from swebench.types import TestSpec

DISK_FULL = "No space left on device"
"""Error of a full disk, which the harness does not treat as an infrastructure failure."""

NOOP = "no-op"
"""`Candidate.model` of runs of the tests without a patch; see `types.NO_OP`."""

PATCH = "patch.diff"
EVAL_SCRIPT = "eval.sh"
TEST_LOG = "test_output.txt"
APPLY_LOG = "run_instance.log"
REPORT = "report.json"
FILES = (PATCH, EVAL_SCRIPT, TEST_LOG, APPLY_LOG, REPORT)
"""Names of the files of a run."""

OWED = (Status.INFRA_ERROR, Status.OOM)
"""Statuses of infrastructure failures, which are graded again."""

ROW_COLUMNS = (
    "instance_id",
    "repo",
    "version",
    "base_commit",
    "image",
    "eval_script",
    "log_parser",
    "eval_type",
    "patch",
    "test_patch",
    "problem_statement",
)


def harness_row(instance: Instance) -> dict[str, Any]:
    """The instance as a dataset row of the harness."""
    row: dict[str, Any] = {name: getattr(instance, name) for name in ROW_COLUMNS}
    row["FAIL_TO_PASS"] = list(instance.FAIL_TO_PASS)
    row["PASS_TO_PASS"] = list(instance.PASS_TO_PASS)
    return row


def test_spec(instance: Instance) -> TestSpec:
    """The harness's `TestSpec` of an instance, with its eval script and parser."""
    from swebench.harness.utils import make_test_spec

    spec = make_test_spec(harness_row(instance))
    if instance.parser:
        spec.log_parser = parser_name(instance.parser)
    return spec


test_spec.__test__ = False  # type: ignore[attr-defined]  # not a test for pytest to collect


def judge(instance: Instance, patch: str, log: Path) -> dict[str, Any]:
    """Judge a log and write `report.json` next to it, in the harness's format.

    Args:
        instance: The graded instance.
        patch: The candidate's patch.
        log: The test log, on disk.

    Returns:
        The harness's report of the instance.
    """
    from swebench.harness.grading import get_eval_report

    prediction = {
        "instance_id": instance.instance_id,
        "model_name_or_path": "",
        "model_patch": patch,
    }
    reports: dict[str, dict[str, Any]] = get_eval_report(
        test_spec=test_spec(instance),
        prediction=prediction,
        test_log_path=str(log),
        include_tests_status=True,
    )
    log.with_name(REPORT).write_text(json.dumps(reports, indent=4))
    return reports[instance.instance_id]


def status_of(report: dict[str, Any], log: str = "") -> tuple[Status, str]:
    """The status for a report of the harness, with an explanation for people.

    Args:
        report: The harness's report of the instance.
        log: The judged test log, to find the cause of a failure.
    """
    if report["resolved"]:
        return Status.RESOLVED, ""
    if report["patch_successfully_applied"]:
        tests = report["tests_status"].values()
        failed = [name for group in tests for name in group["failure"]]
        if DISK_FULL in log:
            return Status.INFRA_ERROR, f"the log contains {DISK_FULL!r}"
        return Status.UNRESOLVED, f"{len(failed)} tests fail, for example {failed[0]}"
    reason = report.get("infra_failure_reason", "")
    if words := _void_words(log):  # printed by the candidate, so a retry is pointless
        reason = f"the patch printed {words!r}, which voids the log"
    elif report["infra_failure"]:
        return Status.INFRA_ERROR, reason
    reason = f"no test results in the log ({reason or 'unknown cause'})"
    return Status.UNRESOLVED, reason


def _void_words(log: str) -> str:
    """A phrase in the log that makes the harness ignore it; empty if it has none."""
    from swebench.harness import constants

    void = (
        constants.APPLY_PATCH_FAIL,
        constants.RESET_FAILED,
        constants.TESTS_ERROR,
        constants.TESTS_TIMEOUT,
    )
    return next((words for words in void if words in log), "")


def final_report(
    instances: Sequence[Instance], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """The harness's final report (schema 2) of one prediction per instance.

    Args:
        instances: The whole dataset; instances without a verdict are incomplete.
        verdicts: One verdict per prediction.

    Raises:
        ValueError: Two verdicts refer to one instance.
    """
    by_id = {verdict.instance_id: verdict for verdict in verdicts}
    if len(by_id) != len(verdicts):
        raise ValueError("a final report holds one prediction per instance")

    def ids(keep: list[Verdict]) -> list[str]:
        return sorted(verdict.instance_id for verdict in keep)

    tried = [v for v in verdicts if v.status is not Status.NO_PATCH]
    # Like the harness: a verdict with a report is completed, any other is an error.
    completed = [v for v in tried if v.report]
    failed = [v for v in tried if not v.report.get("resolved")]
    reasons = {v.instance_id: r for v in failed if (r := _failure_reason(v))}
    infra = [v for v in failed if v.status in OWED]
    named = {
        "completed": ids(completed),
        "incomplete": sorted({i.instance_id for i in instances} - by_id.keys()),
        "empty_patch": ids([v for v in verdicts if v.status is Status.NO_PATCH]),
        "submitted": sorted(by_id),
        "resolved": ids([v for v in completed if v.report.get("resolved")]),
        "unresolved": ids([v for v in completed if not v.report.get("resolved")]),
        "infra_failure": ids(infra),
        "ambiguous_failure": sorted(reasons.keys() - set(ids(infra))),
    }
    errors = ids([v for v in tried if not v.report])
    counted = (
        "submitted",
        "completed",
        "resolved",
        "unresolved",
        "infra_failure",
        "ambiguous_failure",
        "empty_patch",
    )
    return {
        "total_instances": len(instances),
        **{f"{name}_instances": len(named[name]) for name in counted},
        "error_instances": len(errors),
        **{f"{name}_ids": named[name] for name in named},
        "failure_reasons": dict(sorted(reasons.items())),
        "error_ids": errors,
        "schema_version": 2,
    }


def trusted_part(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Our addition to a final report: the instances with a pass that a counter-run trusts."""
    passes = {v.instance_id for v in verdicts if v.trusted_pass and v.strength}
    return {"trusted_instances": len(passes), "trusted_ids": sorted(passes)}


def _failure_reason(verdict: Verdict) -> str:
    """The harness's term for a failure that the machine may cause; empty for others."""
    if verdict.status is Status.OOM:
        return "out_of_memory"
    if verdict.status is Status.TIMEOUT:
        return "tests_timed_out"
    reason = str(verdict.report.get("infra_failure_reason", ""))
    if verdict.status is Status.INFRA_ERROR:
        return reason or verdict.reason or "infra_error"
    return reason
