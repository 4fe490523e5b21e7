"""SWE-bench Pro's grading rule, expressed as log parsers of the harness.

Pro's tests write stdout and stderr to two files. A program of its evaluation repository,
one per instance, parses names and statuses of tests from them. Officially, that program
runs in the container, where a patch can overwrite it and its output. Here it runs on the
host with limits, on the contents of the two files in the log, as a log parser of the
harness. The result of `get_eval_report` then equals that of the official rule.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.store.digest import digest

if TYPE_CHECKING:
    from swebench.types import TestSpec

LIMITED_PROCESS = Path(__file__).with_name("limited_process.py")
WALL_SECONDS = 600.0
"""Far above `limited_process.CPU_SECONDS`, so that a busy machine cannot affect results."""

CACHED_RESULTS = 64
"""Number of cached results; a new log is judged two or three times."""

_RESULTS: dict[str, Any] = {}
"""The most recent outputs of parser programs, by digest of program and files."""

_STREAMS = {"O:": "stdout.log", "E:": "stderr.log"}
_OUTPUT = "output.json"
_ESCAPED = re.compile("\x10([\x10.r])")
_PLAIN = {"\x10": "\x10", ".": "", "r": "\r"}
_SECTION = re.compile(r"^(?=diff --git )", re.MULTILINE)
_BINARY = re.compile(r"^(?:Binary files .* differ|GIT binary patch)$", re.MULTILINE)
_SCRIPT = re.compile(
    r"^sed 's/\^\|//' > (?P<path>/workspace/run_script\.sh) <<'(?P<end>\w+)'\n"
    r"(?P<lines>(?:\|.*\n)*)(?P=end)$",
    re.MULTILINE,
)


def parser_name(source: str) -> str:
    """Register a program as a log parser of the harness, and return its name.

    Each program has its own name, so that instances with different programs can be
    graded at the same time.
    """
    from swebench.harness.log_parsers import PARSER_REGISTRY

    name = f"swebench_pro:{digest(source)}"
    PARSER_REGISTRY.setdefault(name, functools.partial(parse_log, source))
    return name


def parse_log(source: str, log: str, spec: TestSpec) -> dict[str, str]:
    """Log parser of the harness: map the log between the markers to test statuses.

    Args:
        source: The program that parses the two files.
        log: The part of the log between the markers. The harness retries with the
            whole log if that has no results; then the result is empty as well.
        spec: Contains the names of the expected tests.
    """
    from swebench.harness.constants import START_TEST_OUTPUT

    if START_TEST_OUTPUT in log:
        return {}
    tests = read_tests(_output(source, log))
    return status_map(tests, [*spec.FAIL_TO_PASS, *spec.PASS_TO_PASS])


def written_statuses(source: str, log: str) -> dict[str, str]:
    """Statuses of the tests that the program names, as it spells them.

    Unlike `parse_log`, this distinguishes a failed test from a skipped or missing one.
    The best of several entries counts, as in the official rule.

    Args:
        source: The program.
        log: The part of the log between the markers.
    """
    document = _output(source, log)
    passed = read_tests(document)
    found: dict[str, str] = {}
    for entry in document["tests"] if passed else ():
        name, status = entry.get("name"), str(entry["status"])
        if isinstance(name, str) and found.get(name) not in ("PASSED", "FAILED"):
            found[name] = "PASSED" if passed[name] else status
    return found


def _output(source: str, log: str) -> Any:
    """What a parser program makes of a log; from the cache where possible."""
    files = streams(log)
    key = digest([source, files])
    document = _RESULTS.get(key)
    if document is None:
        document = _RESULTS[key] = parser_output(source, files)
        for oldest in list(_RESULTS)[:-CACHED_RESULTS]:
            _RESULTS.pop(oldest, None)
    return document


def status_map(
    passed_by_name: Mapping[str, bool], expected: Iterable[str]
) -> dict[str, str]:
    """Statuses for which the harness's rule equals Pro's: only PASSED is a pass.

    A missing expected test has failed. The harness agrees, except for names with an open
    bracket, which it treats as prefixes.
    """
    if not passed_by_name:
        return {}
    unseen = dict.fromkeys(expected, False)
    return {
        name: "PASSED" if passed else "FAILED"
        for name, passed in {**unseen, **passed_by_name}.items()
    }


def streams(log: str) -> dict[str, str]:
    """Contents of the two files that the eval script wrote to the log, by name."""
    lines: dict[str, list[str]] = {prefix: [] for prefix in _STREAMS}
    for line in log.split("\n"):
        if line[:2] in lines:
            lines[line[:2]].append(line[2:])
    return {
        name: _unescaped("\n".join(lines[prefix]).removesuffix("."))
        for prefix, name in _STREAMS.items()
    }


def run_parser(source: str, files: Mapping[str, str]) -> dict[str, bool]:
    """Run a parser program on the two files; see `read_tests` for the result."""
    return read_tests(parser_output(source, files))


def parser_output(source: str, files: Mapping[str, str]) -> Any:
    """Run a parser program on the two files.

    Returns:
        Its output; empty if the program fails or exceeds its limits.

    Raises:
        OSError: The machine is too busy or out of memory.
    """
    with tempfile.TemporaryDirectory(prefix="swebench-trainer-") as name:
        folder = Path(name)
        for path, text in {"parser.py": source, **files}.items():
            (folder / path).write_text(text, encoding="utf-8", newline="")
        program = [sys.executable, "-I", "-S", "-X", "utf8", str(LIMITED_PROCESS)]
        try:
            done = subprocess.run(
                [*program, "parser.py", *_STREAMS.values(), _OUTPUT],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=WALL_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(
                f"the parser took more than {WALL_SECONDS:g} seconds"
            ) from error
        if done.returncode == -signal.SIGKILL:
            raise OSError("the parser was killed")
        try:
            return json.loads((folder / _OUTPUT).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}


def read_tests(document: Any) -> dict[str, bool]:
    """Whether each test passed: whether any of its entries has the status PASSED.

    Args:
        document: Output of a parser program, officially
            `{"tests": [{"name": …, "status": …}, …]}`. Any other form gives no tests.
    """
    try:
        # The official rule, including its failures.
        passed = {t["name"] for t in document["tests"] if t["status"] == "PASSED"}
        seen = [
            name for t in document["tests"] if isinstance(name := t.get("name"), str)
        ]
    except (KeyError, TypeError):
        return {}
    return {name: name in passed for name in seen}


def without_binary_hunks(patch: str) -> str:
    """A patch without its binary files.

    The official evaluation removes them, although git could apply some of them.
    """
    sections = _SECTION.split(patch)
    return "".join(s for s in sections if s.strip() and not _BINARY.search(s))


def script_was_changed(eval_script: str, log: str) -> bool:
    """Whether the run script, which tests can write to, changed during the run.

    Args:
        eval_script: Contains the run script, and prints its digest after `S:`.
        log: The test log.
    """
    script = _SCRIPT.search(eval_script)
    if script is None:
        return False
    content = re.sub(r"^\|", "", script["lines"], flags=re.MULTILINE)
    intact = hashlib.sha256(content.encode()).hexdigest()
    return [line.split()[0] for line in log.split("\n") if line[:2] == "S:"] != [
        f"S:{intact}"
    ]


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: _PLAIN[match[1]], text)
