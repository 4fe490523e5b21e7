"""Signs in a test log that a pass is not genuine.

The eval script runs under `set -x`, so an honest log has each of the harness's markers
exactly as often as the script writes it. A candidate can print anything, including more
markers, but cannot remove the real ones. The log of the gold run shows what is normal.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swebench_trainer.contracts import GoldRun
from swebench_trainer.grading.official import TEST_LOG, test_spec
from swebench_trainer.grading.pro import written_statuses
from swebench_trainer.grading.sandbox import read_execution
from swebench_trainer.patches.hostile_diff import existing_paths, patched_paths
from swebench_trainer.types import Instance

if TYPE_CHECKING:
    from swebench.types import TestSpec

# Errors of git when the script cannot install the official tests.
_GIT_ERROR = re.compile(
    r"^error: (?:pathspec '(?P<path>.+)' did not match|patch failed: |.+: (?:already "
    r"exists in (?:working directory|index)|patch does not apply|does not exist in "
    r"index|does not match index|No such file or directory|wrong type)$)",
    re.MULTILINE,
)


# Commands of official scripts that install the project or its dependencies.
_INSTALLER = re.compile(
    r"^\++ (?:sudo |env |\w+=\S* )*(?:\S*/)?(?:"
    r"(?:python[\d.]* -m )?pip[\d.]* install|python[\d.]* setup\.py (?:install|develop)"
    r"|uv (?:pip install|sync)|poetry install|(?:conda|mamba) (?:install|env)"
    r"|(?:npm|pnpm|yarn) (?:ci|install|i)|yarn$|bundle install|composer install"
    r"|go mod download|cargo fetch|apt(?:-get)? install"
    r")(?: .*)?$",
    re.MULTILINE,
)
_TRACE = re.compile(r"^\++ \S", re.MULTILINE)
_INSTALLED = re.compile(
    r"^(?:Successfully installed |Requirement already satisfied|Finished processing "
    r"dependencies for |Resolved \d+ packages?|Installed \d+ packages?|Audited \d+ "
    r"|added \d+ packages?|up to date|changed \d+ packages?|Bundle complete)",
    re.MULTILINE,
)
# pip's resolver reports conflicts as an error, and installs nevertheless.
_NOT_INSTALLED = re.compile(
    r"^(?:ERROR: (?!pip's dependency resolver)|error: |error\[|npm (?:ERR!|error) "
    r"|E: (?:Unable|Package|Failed)|Could not fetch |fatal: )",
    re.MULTILINE,
)
_QUIET = re.compile(r" (?:-q+|--quiet|--silent)\b")


@dataclass(frozen=True)
class Transcript:
    """A test log, parsed as the harness does.

    Attributes:
        instance: The tested instance.
        text: The log, as read by `get_eval_report`.
    """

    instance: Instance
    text: str

    @functools.cached_property
    def spec(self) -> TestSpec:
        """The harness's `TestSpec` of the instance."""
        return test_spec(self.instance)

    @functools.cached_property
    def region(self) -> str:
        """The text between the first markers; empty without them."""
        from swebench.harness import constants

        _, *after_start = self.text.split(constants.START_TEST_OUTPUT)
        return after_start[0].split(constants.END_TEST_OUTPUT)[0] if after_start else ""

    @functools.cached_property
    def between(self) -> Mapping[str, str]:
        """Test statuses between the first markers."""
        return self._parsed(self.region)

    @functools.cached_property
    def statuses(self) -> Mapping[str, str]:
        """Test statuses that count for the verdict."""
        return self.between or self._parsed(self.text)

    @property
    def written(self) -> Mapping[str, str]:
        """Test statuses as written: a test without a line has none in SWE-bench Pro, too."""
        if self.instance.parser:
            return written_statuses(self.instance.parser, self.region)
        return self.statuses

    @property
    def exit_codes(self) -> list[int]:
        """Each exit code of the tests in the log, in order."""
        from swebench.harness.grading import TEST_EXIT_CODE_RE

        return [int(code) for code in TEST_EXIT_CODE_RE.findall(self.text)]

    @property
    def failed(self) -> frozenset[str]:
        """The expected tests that fail by the harness's rules."""
        from swebench.harness.constants import FAIL_TO_PASS, PASS_TO_PASS, EvalType
        from swebench.harness.grading import get_eval_tests_report

        spec = self.spec
        expected = {FAIL_TO_PASS: spec.FAIL_TO_PASS, PASS_TO_PASS: spec.PASS_TO_PASS}
        kind = EvalType(spec.eval_type)
        report = get_eval_tests_report(dict(self.statuses), expected, eval_type=kind)
        groups = (report[group]["failure"] for group in expected)
        return frozenset(itertools.chain.from_iterable(groups))

    @functools.cached_property
    def contradicted(self) -> frozenset[str]:
        """The expected tests with lines both of success and of failure.

        The harness counts only one of the lines. A parser that joins lines finds fewer
        results in single ones, so this can miss contradictions but not invent them. In
        SWE-bench Pro, one success among several results is officially a pass.
        """
        if self.instance.parser:
            return frozenset()
        passed, failed = set[str](), set[str]()
        for line in dict.fromkeys(self.text.split("\n")):
            for name, status in self._parsed(line).items():
                if status in ("FAILED", "ERROR"):
                    failed.add(name)
                elif status in ("PASSED", "XFAIL"):
                    passed.add(name)
        both = frozenset(passed & failed)
        expected = [*self.spec.FAIL_TO_PASS, *self.spec.PASS_TO_PASS]
        return frozenset(name for name in expected if _matches(name, both))

    def named(self, *statuses: str) -> frozenset[str]:
        """The tests with one of these statuses of the harness."""
        found = self.statuses.items()
        return frozenset(name for name, status in found if status in statuses)

    def _parsed(self, text: str) -> Mapping[str, str]:
        from swebench.harness.log_parsers import PARSER_REGISTRY

        statuses: dict[str, str] = PARSER_REGISTRY[self.spec.log_parser](
            text, self.spec
        )
        return statuses


def failing(log: Transcript) -> frozenset[str]:
    """The tests that fail."""
    return log.named("FAILED", "ERROR")


def excused(log: Transcript) -> frozenset[str]:
    """The tests that were skipped or marked as expected failures."""
    return log.named("SKIPPED", "XFAIL")


def without_result(log: Transcript) -> frozenset[str]:
    """The expected tests that the log says nothing about."""
    names = frozenset(log.written)
    expected = [*log.spec.FAIL_TO_PASS, *log.spec.PASS_TO_PASS]
    return frozenset(name for name in expected if not _matches(name, names))


def gold_run(instance: Instance, log_dir: Path) -> GoldRun | None:
    """The gold run with logs in `log_dir`; `None` if it ran no tests.

    The sandbox of a run that did not pass was not inspected, so such a run does not
    explain any changed files.
    """
    execution = read_execution(log_dir)
    if execution is None or not execution.tested:
        return None
    text = (log_dir / TEST_LOG).read_text(encoding="utf-8", errors="replace")
    log = Transcript(instance, text)
    evidence = execution.evidence
    return GoldRun(
        seconds=execution.seconds["test"],
        failed=failing(log),
        skipped=excused(log),
        changed=frozenset(evidence.changed if evidence else ()),
        without_result=without_result(log),
        contradicted=log.contradicted,
        installed=installs(log),
        tests=frozenset(evidence.tests.items() if evidence else ()),
        rewritten=frozenset(evidence.rewritten if evidence else ()),
        running=frozenset(evidence.running if evidence else ()),
    )


def has_extra_markers(log: Transcript) -> bool:
    """Whether the log has more markers than the eval script writes."""
    return any(log.text.count(marker) > n for marker, n in _markers(log.spec).items())


def lacks_exit_marker(log: Transcript) -> bool:
    """Whether the exit code that the script should record is missing from the log."""
    from swebench.harness import constants

    return (
        bool(_markers(log.spec)[constants.TEST_EXIT_CODE])
        and constants.TEST_EXIT_CODE not in log.text
    )


def has_two_exit_codes(log: Transcript) -> bool:
    """Whether the first exit code, which the harness reads, differs from the last."""
    codes = log.exit_codes
    return bool(codes) and codes[0] != codes[-1]


def has_unexplained_exit(log: Transcript, gold: GoldRun | None) -> bool:
    """Whether the test command fails without a failing test to explain it.

    All expected tests have passed. Failures of other tests are an explanation only if
    those tests fail with the gold patch as well.
    """
    codes = log.exit_codes
    if not codes or codes[-1] == 0:
        return False
    names = failing(log)
    return gold is None or not names or not names <= gold.failed


def has_results_outside(log: Transcript) -> bool:
    """Whether the harness finds results only outside the markers."""
    return not log.between and bool(log.statuses)


def has_excused_tests(log: Transcript, gold: GoldRun | None) -> bool:
    """Whether an expected test was skipped or marked as an expected failure.

    Without a gold run, only FAIL_TO_PASS tests are required to pass.
    """
    expected = list(log.spec.FAIL_TO_PASS)
    names = excused(log)
    if gold is not None:
        expected += log.spec.PASS_TO_PASS
        names -= gold.skipped
    return any(_matches(name, names) for name in expected)


def lacks_results(log: Transcript, gold: GoldRun | None) -> bool:
    """Whether an expected test has no result, so that it may never have run.

    With `eval_type = "fail_only"`, the harness counts such tests as passed. PASS_TO_PASS
    tests count only if the gold run has their results.
    """
    absent = without_result(log)
    if gold is None:
        return not absent.isdisjoint(log.spec.FAIL_TO_PASS)
    return not absent <= gold.without_result - set(log.spec.FAIL_TO_PASS)


def has_contradiction(log: Transcript, gold: GoldRun | None) -> bool:
    """Whether an expected test has lines of success and of failure, unlike with gold."""
    return not log.contradicted <= (gold.contradicted if gold else frozenset())


def has_refused_tests(log: Transcript) -> bool:
    """Whether git could not install the official tests.

    Some official scripts check out files that the test patch adds only later; that
    error occurs for every candidate and does not count.
    """
    patch = log.instance.test_patch
    added = set(patched_paths(patch)) - existing_paths(patch)
    return any(error["path"] not in added for error in _git_errors(log.text))


def installs(log: Transcript) -> frozenset[str]:
    """The commands before the tests that installed something without an error.

    Args:
        log: Of a script that runs under `set -x`.
    """
    from swebench.harness import constants

    text = log.text.partition(constants.START_TEST_OUTPUT)[0]
    done = set()
    for command in _INSTALLER.finditer(text):
        after = _TRACE.search(text, command.end())
        output = text[command.end() : after.start() if after else len(text)]
        success = _INSTALLED.search(output) or _QUIET.search(command[0])
        if success and not _NOT_INSTALLED.search(output):
            done.add(command[0])
    return frozenset(done)


def has_failed_install(log: Transcript, gold: GoldRun | None) -> bool:
    """Whether a command did not install what it installs with gold.

    The tests then ran on an earlier installation.
    """
    return gold is not None and not gold.installed <= installs(log)


def _git_errors(text: str) -> Iterator[re.Match[str]]:
    """Errors of git before and after the tests, whose own output is ignored."""
    from swebench.harness import constants

    yield from _GIT_ERROR.finditer(text.partition(constants.START_TEST_OUTPUT)[0])
    yield from _GIT_ERROR.finditer(text.rpartition(constants.END_TEST_OUTPUT)[2])


def _matches(expected: str, names: frozenset[str]) -> bool:
    """Whether `names` contains the expected name, or one that it is a prefix of."""
    if expected.count("[") > expected.count("]"):
        return any(name.startswith(expected) for name in names)
    return expected in names


def _markers(spec: TestSpec) -> dict[str, int]:
    """Number of occurrences of each marker in an honest log.

    `: 'marker'` occurs once, as a trace; `echo 'marker'` twice, as trace and output.
    """
    from swebench.harness import constants

    return {
        marker: sum(
            2 if line.lstrip().startswith("echo") else 1
            for line in spec.eval_script_list
            if marker in line
        )
        for marker in (
            constants.START_TEST_OUTPUT,
            constants.END_TEST_OUTPUT,
            constants.TEST_EXIT_CODE,
        )
    }
