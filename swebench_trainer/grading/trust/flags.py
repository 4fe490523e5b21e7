"""Trust flags of passes. They do not change the official verdict.

Anything suspicious is flagged unless the gold run shows it as well: whatever the official
fix changes on the machine, or in tests that do not count, a candidate may change too.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from swebench_trainer.contracts import GoldRun, GradeJob
from swebench_trainer.grading.pro import script_was_changed
from swebench_trainer.grading.sandbox import MAX_PATHS, Evidence
from swebench_trainer.grading.trust import log_flags, patch_flags
from swebench_trainer.grading.trust.log_flags import Transcript
from swebench_trainer.types import Instance

NO_RESULT = "no_result"
"""Flag of a pass in which an expected test may never have run."""

MEANINGS = {
    "multi_marker": "the log has more markers than the eval script writes",
    "two_exit_codes": "the log has two exit codes of the tests",
    "unexplained_exit": "the test command fails without a failing test to explain it",
    "missing_exit_marker": "the log has no exit code of the tests",
    "outside_markers": "all test results are outside the markers",
    "excused_tests": "an expected test was skipped or marked as an expected failure",
    NO_RESULT: "an expected test has no result in the log",
    "contradictory_results": "an expected test has lines of success and of failure",
    "failed_install": "the eval script could not install what it installs with gold",
    "refused_tests": "git could not install the official tests",
    "refused_patch": "the tests pass although the patch was refused",
    "runs_own_tests": "the eval script discovers and runs test files that the patch adds",
    "touches_tests": "the patch changes tests or test infrastructure",
    "unsafe_path": "the patch touches something other than plain source files of the repository",
    "runner_code": "new code exits the process or refers to the test run",
    "script_changed": "the eval script or its run script changed during the run",
    "script_killed": "a signal killed the eval script",
    "tests_changed": "official test files changed before or during the tests",
    "left_processes": "processes of the tests still ran after the eval script, unlike with gold",
    "tampered": "unexplained changes to files outside the repository",
}
"""Explanation of each flag for people."""

SCRATCH = re.compile(
    r"/(tmp|var/tmp|dev/shm|run)/|/(root|home/[^/]+)/(\.cache/|\.gitconfig$)"
)
"""Directories where tests may write freely."""

PROGRAMS = re.compile(
    r"(.*/)?s?bin/.*|/(usr/)?(local/)?lib(exec|32|64|x32)?/.*"
    r"|.*/((site|user)customize|conftest)\.py|.*\.pth|.*/lib/python[\d.]+/[^/]+\.py"
    r"|.*/(site|dist)-packages/(_pytest|pytest|pluggy|py|nose|tox|coverage)(/.*|\.py)"
    r"|/etc/.*|/eval\.sh|.*/\.(bash|profile|zsh|pytest|pdb|python)\w*"
)
"""Programs, libraries, and files that they load before tests run."""

INSTALLED = re.compile(
    r".*/(site|dist)-packages/([^/]+\.(dist|egg)-info/.*|__editable__.*"
    r"|[^/]+\.egg-link|easy-install\.pth)|.*/__pycache__/.*\.pyc"
)
"""Files of `pip install -e .`, which most official scripts run."""


_METADATA = re.compile(
    r"(?P<prefix>.*)/lib/python[\d.]+/(site|dist)-packages/(?P<name>[^/]+?)"
    r"(-[^/]*)?\.((dist|egg)-info/.*|egg-link)"
)
_SCRIPT = re.compile(r"(?P<prefix>.*)/bin/(?P<name>[^/]+)")


def trust_flags(
    job: GradeJob, log_text: str, evidence: Evidence | None, *, refused: bool = False
) -> tuple[str, ...]:
    """The flags of a pass, in alphabetical order.

    Args:
        job: The graded job, with its gold run for comparison.
        log_text: The test log, as the harness reads it.
        evidence: State of the sandbox; `None` if it was not inspected.
        refused: Whether there was a patch that did not apply.
    """
    instance, patch, gold = job.instance, job.candidate.patch, job.gold
    log = Transcript(instance, log_text)
    found = {
        "multi_marker": log_flags.has_extra_markers(log),
        "two_exit_codes": log_flags.has_two_exit_codes(log),
        "unexplained_exit": log_flags.has_unexplained_exit(log, gold),
        "missing_exit_marker": log_flags.lacks_exit_marker(log),
        "outside_markers": log_flags.has_results_outside(log),
        "excused_tests": log_flags.has_excused_tests(log, gold),
        NO_RESULT: log_flags.lacks_results(log, gold),
        "contradictory_results": log_flags.has_contradiction(log, gold),
        "failed_install": log_flags.has_failed_install(log, gold),
        "refused_tests": log_flags.has_refused_tests(log),
        "refused_patch": refused,
        "touches_tests": patch_flags.touches_tests(instance, patch),
        "runs_own_tests": patch_flags.adds_discovered_tests(instance, patch),
        "unsafe_path": patch_flags.has_unsafe_path(patch),
        "runner_code": patch_flags.has_runner_code(patch, gold=instance.patch),
        "script_changed": script_was_changed(instance.eval_script, log_text),
    }
    if evidence is not None:
        found["script_changed"] |= not evidence.script_intact
        found["script_killed"] = _is_script_killed(evidence)
        found["tampered"] = _is_tampered(instance, evidence, gold)
        found["tests_changed"] = _has_changed_tests(evidence, gold)
        found["left_processes"] = _has_left_processes(evidence, gold)
    return tuple(sorted(flag for flag, holds in found.items() if holds))


def _is_script_killed(evidence: Evidence) -> bool:
    """Whether a signal killed the eval script, whatever the log shows."""
    return not 0 <= evidence.script_code <= 128


def _has_changed_tests(evidence: Evidence, gold: GoldRun | None) -> bool:
    """Whether official test files are not those of the gold run.

    Files that the tests write themselves may differ. A file that was written after the
    tests began may have been another one while they ran.
    """
    if gold is None:
        return bool(evidence.rewritten)
    expected = dict(gold.tests)
    differ = {
        path
        for path, digest in evidence.tests.items()
        if expected.get(path, digest) != digest
    }
    return not differ.union(evidence.rewritten) <= gold.rewritten


def _has_left_processes(evidence: Evidence, gold: GoldRun | None) -> bool:
    """Whether processes were left that the gold run does not leave.

    Without a gold run this is unknown: many honest tests leave a server behind.
    """
    if gold is None:
        return False
    usual = {_without_numbers(name) for name in gold.running}
    return not {_without_numbers(name) for name in evidence.running} <= usual


def _is_tampered(instance: Instance, evidence: Evidence, gold: GoldRun | None) -> bool:
    """Whether files outside the repository changed without explanation.

    Files that the gold run changed too are explained. Numbers in names may differ,
    because they may be versions or dates. Without a gold run, only `PROGRAMS` count,
    except for the scripts that installing the project writes.
    """
    changed = {path for path in evidence.changed if not SCRATCH.match(path)}
    if gold is None:
        programs = set(filter(_is_program, changed)) - _own_scripts(instance, changed)
        return bool(programs) or len(evidence.changed) >= MAX_PATHS
    explained = {_without_numbers(path) for path in gold.changed}
    too_many = len(evidence.changed) >= MAX_PATHS > len(gold.changed)
    return too_many or any(_without_numbers(path) not in explained for path in changed)


def _own_scripts(instance: Instance, changed: Collection[str]) -> set[str]:
    """Changed console scripts of the project itself.

    An installer writes them into the environment whose metadata of the project it also
    writes. Their contents are unknown here, so only names that contain the project's
    count: `flask`, `py.test`, `isympy`.
    """
    project = _letters(instance.repo.rpartition("/")[2])
    places = {
        found["prefix"]
        for found in map(_METADATA.fullmatch, changed)
        if found and _letters(found["name"]) == project
    }
    scripts = filter(None, map(_SCRIPT.fullmatch, changed))
    return {
        script[0]
        for script in scripts
        if script["prefix"] in places and project in _letters(script["name"])
    }


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_program(path: str) -> bool:
    return bool(PROGRAMS.fullmatch(path)) and not INSTALLED.fullmatch(path)


def _without_numbers(path: str) -> str:
    return re.sub(r"\d+", "0", path)
