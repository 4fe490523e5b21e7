"""Why a pass is not believed. The official verdict stays what it is beside these.

A flag is the default and the gold run is what excuses: what the official fix does to
the machine and to the tests that do not count, a candidate may do too.
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
    MULTI_MARKER: "the log holds more markers than the eval script writes",
    TWO_EXIT_CODES: "the log gives the tests two exit codes",
    UNEXPLAINED_EXIT: "the tests end with an error that no test explains",
    MISSING_EXIT_MARKER: "the log does not hold the exit code of the tests",
    OUTSIDE_MARKERS: "all results of tests lie outside the markers",
    EXCUSED_TESTS: "an expected test was skipped, or expected to fail",
    REFUSED_TESTS: "git could not put the official tests in their place",
    REFUSED_PATCH: "the tests pass although the patch was refused",
    TOUCHES_TESTS: "the patch changes tests, or what runs them",
    UNSAFE_PATH: "the patch names what is not plain source in the repository",
    RUNNER_CODE: "new code ends the process, or speaks of the test run",
    SCRIPT_CHANGED: "the eval script, or what it runs, was changed while it ran",
    SCRIPT_KILLED: "a signal ended the eval script",
    TAMPERED: "files changed outside the repository that the tests do not explain",
}
"""What each flag says, for people."""


def trust_flags(
    job: GradeJob, log_text: str, evidence: Evidence | None
) -> tuple[str, ...]:
    """The flags of a candidate that passes, in alphabetical order.

    Args:
        job: What was graded, with the gold run to compare with.
        log_text: The test log, as the harness reads it.
        evidence: What was seen in the sandbox; `None` where nobody could look.
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
