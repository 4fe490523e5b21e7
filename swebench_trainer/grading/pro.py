"""SWE-bench Pro's way of grading, in the harness's terms.

Its tests write stdout and stderr to two files, and a program of its evaluation
repository, one per instance, reads names and statuses from them. Officially that
program runs in the container, where a patch can overwrite it and what it writes. Here
it runs on this host, confined, with what the log holds of the two files, and becomes a
parser of the harness; `get_eval_report` then says exactly what the official rule says.
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
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swebench_trainer.store.digest import digest

if TYPE_CHECKING:
    from swebench.types import TestSpec

LIMITED_PROCESS = Path(__file__).with_name("limited_process.py")
WALL_SECONDS = 600.0
"""Far more than `limited_process.CPU_SECONDS`, so that a busy machine decides nothing."""

REMEMBERED = 64
"""A log is judged two or three times while it is new."""

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
    """Makes a program known to the harness as a log parser, and returns its name.

    The name is the program's own, so that instances with different programs can be
    graded at the same time.
    """
    from swebench.harness.log_parsers import PARSER_REGISTRY

    name = f"swebench_pro:{digest(source)}"
    PARSER_REGISTRY.setdefault(name, functools.partial(parse_log, source))
    return name


def parse_log(source: str, log: str, spec: TestSpec) -> dict[str, str]:
    """A parser of the harness: what stands between the markers → status of each test.

    Args:
        source: The program that reads the two files.
        log: The part of the log between the markers. For the whole log, in which the
            harness looks when that gave nothing, the answer is nothing again.
        spec: Has the names of the expected tests.
    """
    from swebench.harness.constants import START_TEST_OUTPUT

    if START_TEST_OUTPUT in log:
        return {}
    files = streams(log)
    key = digest([source, files])
    tests = _RECENT.get(key)
    if tests is None:
        tests = run_parser(source, files)
        _RECENT.put(key, tests)
    return status_map(tests, [*spec.FAIL_TO_PASS, *spec.PASS_TO_PASS])


def status_map(
    passed_by_name: Mapping[str, bool], expected: Iterable[str]
) -> dict[str, str]:
    """Statuses with which the harness's rule becomes Pro's: only PASSED is a pass.

    An expected test that was not seen has failed. That is so for the harness too, but
    not for a name with an open bracket, which it takes for the start of one.
    """
    if not passed_by_name:
        return {}
    unseen = dict.fromkeys(expected, False)
    return {
        name: "PASSED" if passed else "FAILED"
        for name, passed in {**unseen, **passed_by_name}.items()
    }


def streams(log: str) -> dict[str, str]:
    """The files that the eval script has written into the log, by name."""
    lines: dict[str, list[str]] = {prefix: [] for prefix in _STREAMS}
    for line in log.split("\n"):
        if line[:2] in lines:
            lines[line[:2]].append(line[2:])
    return {
        name: _unescaped("\n".join(lines[prefix]).removesuffix("."))
        for prefix, name in _STREAMS.items()
    }


def run_parser(source: str, files: Mapping[str, str]) -> dict[str, bool]:
    """Runs a program on the two files; see `read_tests` for what it returns.

    A program that fails, or that its limits end, has seen no test.

    Raises:
        OSError: The machine had no time or no memory for it.
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
            raise OSError(f"the parser took {WALL_SECONDS:g} seconds") from error
        if done.returncode == -signal.SIGKILL:
            raise OSError("the parser was killed")
        try:
            return read_tests(json.loads((folder / _OUTPUT).read_bytes()))
        except (OSError, ValueError, RecursionError):
            return {}


def read_tests(document: Any) -> dict[str, bool]:
    """The tests that a program has found, with whether any entry says PASSED.

    Args:
        document: Officially `{"tests": [{"name": …, "status": …}, …]}`. Of anything
            else, no test is believed.
    """
    try:
        # The official rule, which fails where it does.
        passed = {t["name"] for t in document["tests"] if t["status"] == "PASSED"}
        seen = [
            name for t in document["tests"] if isinstance(name := t.get("name"), str)
        ]
    except (KeyError, TypeError):
        return {}
    return {name: name in passed for name in seen}


def without_binary_hunks(patch: str) -> str:
    """A patch without the files that it changes as binary ones.

    The official evaluation does so, although git could apply some of them.
    """
    sections = _SECTION.split(patch)
    return "".join(s for s in sections if s.strip() and not _BINARY.search(s))


def script_was_changed(eval_script: str, log: str) -> bool:
    """Whether the run script, which tests could write to, is another after the run.

    Args:
        eval_script: Holds the run script, and writes its digest behind `S:`.
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


class _Recent:
    """What was found of late, by digest of what it was found in."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, dict[str, bool]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> dict[str, bool] | None:
        with self._lock:
            return self._found.get(key)

    def put(self, key: str, tests: dict[str, bool]) -> None:
        with self._lock:
            self._found[key] = tests
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)


_RECENT = _Recent()
