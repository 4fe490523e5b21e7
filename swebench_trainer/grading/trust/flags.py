"""Trust flags of passes. They do not change the official verdict.

Anything suspicious is flagged unless the gold run shows it as well: whatever the official
fix changes on the machine, or in tests that do not count, a candidate may change too.
"""

from __future__ import annotations

from swebench_trainer.contracts import GradeJob
from swebench_trainer.grading.pro import script_was_changed
from swebench_trainer.grading.sandbox import Evidence
from swebench_trainer.grading.trust.log_flags import (
    Transcript,
    has_excused_tests,
    has_extra_markers,
    has_refused_tests,
    has_results_outside,
    has_two_exit_codes,
    has_unexplained_exit,
    lacks_exit_marker,
)
from swebench_trainer.grading.trust.patch_flags import (
    has_runner_code,
    has_unsafe_path,
    touches_tests,
)
from swebench_trainer.grading.trust.sandbox_flags import is_script_killed, is_tampered

MULTI_MARKER = "multi_marker"
TWO_EXIT_CODES = "two_exit_codes"
UNEXPLAINED_EXIT = "unexplained_exit"
MISSING_EXIT_MARKER = "missing_exit_marker"
OUTSIDE_MARKERS = "outside_markers"
EXCUSED_TESTS = "excused_tests"
REFUSED_TESTS = "refused_tests"
REFUSED_PATCH = "refused_patch"
TOUCHES_TESTS = "touches_tests"
UNSAFE_PATH = "unsafe_path"
RUNNER_CODE = "runner_code"
SCRIPT_CHANGED = "script_changed"
SCRIPT_KILLED = "script_killed"
TAMPERED = "tampered"

MEANINGS = {
    MULTI_MARKER: "the log has more markers than the eval script writes",
    TWO_EXIT_CODES: "the log has two exit codes of the tests",
    UNEXPLAINED_EXIT: "the test command fails without a failing test to explain it",
    MISSING_EXIT_MARKER: "the log has no exit code of the tests",
    OUTSIDE_MARKERS: "all test results are outside the markers",
    EXCUSED_TESTS: "an expected test was skipped or marked as an expected failure",
    REFUSED_TESTS: "git could not install the official tests",
    REFUSED_PATCH: "the tests pass although the patch was refused",
    TOUCHES_TESTS: "the patch changes tests or test infrastructure",
    UNSAFE_PATH: "the patch touches something other than plain source files of the repository",
    RUNNER_CODE: "new code exits the process or refers to the test run",
    SCRIPT_CHANGED: "the eval script or its run script changed during the run",
    SCRIPT_KILLED: "a signal killed the eval script",
    TAMPERED: "unexplained changes to files outside the repository",
}
"""Explanation of each flag for people."""


def trust_flags(
    job: GradeJob, log_text: str, evidence: Evidence | None
) -> tuple[str, ...]:
    """The flags of a pass, in alphabetical order.

    Args:
        job: The graded job, with its gold run for comparison.
        log_text: The test log, as the harness reads it.
        evidence: State of the sandbox; `None` if it was not inspected.
    """
    instance, patch, gold = job.instance, job.candidate.patch, job.gold
    log = Transcript(instance, log_text)
    found = {
        MULTI_MARKER: has_extra_markers(log),
        TWO_EXIT_CODES: has_two_exit_codes(log),
        UNEXPLAINED_EXIT: has_unexplained_exit(log, gold),
        MISSING_EXIT_MARKER: lacks_exit_marker(log),
        OUTSIDE_MARKERS: has_results_outside(log),
        EXCUSED_TESTS: has_excused_tests(log, gold),
        REFUSED_TESTS: has_refused_tests(log),
        TOUCHES_TESTS: touches_tests(instance, patch),
        UNSAFE_PATH: has_unsafe_path(patch),
        RUNNER_CODE: has_runner_code(patch, gold=instance.patch),
        SCRIPT_CHANGED: script_was_changed(instance.eval_script, log_text)
        or (evidence is not None and not evidence.script_intact),
        SCRIPT_KILLED: evidence is not None and is_script_killed(evidence),
        TAMPERED: evidence is not None and is_tampered(evidence, gold),
    }
    return tuple(sorted(flag for flag, holds in found.items() if holds))
