"""Why a pass is not believed. The official verdict stays what it is beside these."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from swebench_trainer.types import Instance

MULTI_MARKER = "multi_marker"
MISSING_EXIT_MARKER = "missing_exit_marker"
OUTSIDE_MARKERS = "outside_markers"
TOUCHES_TESTS = "touches_tests"

RUNNER_FILES = {
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "pyproject.toml",
    "tox.ini",
    "setup.cfg",
    "sitecustomize.py",
    "usercustomize.py",
}
"""Files that change how tests run, wherever they lie."""

_HEADER = re.compile(
    r"^diff --git (?P<both>.+)$"
    r"|^(?:---|\+\+\+) (?P<file>.+)$"
    r"|^(?:rename|copy) (?:from|to) (?P<moved>.+)$",
    re.MULTILINE,
)


def trust_flags(instance: Instance, patch: str, log: str) -> tuple[str, ...]:
    """The flags of one graded candidate, in alphabetical order.

    Args:
        instance: What was graded.
        patch: The candidate's patch.
        log: The test log, as the harness reads it.
    """
    found = {
        MULTI_MARKER: has_extra_markers(instance, log),
        MISSING_EXIT_MARKER: lacks_exit_marker(instance, log),
        OUTSIDE_MARKERS: has_results_outside(instance, log),
        TOUCHES_TESTS: touches_tests(patch, instance.test_patch),
    }
    return tuple(sorted(flag for flag, holds in found.items() if holds))


def has_extra_markers(instance: Instance, log: str) -> bool:
    """Whether the log holds more markers than the eval script writes."""
    return any(log.count(marker) > n for marker, n in _expected(instance).items())


def lacks_exit_marker(instance: Instance, log: str) -> bool:
    """Whether the script should have recorded the tests' exit code but has not."""
    from swebench.harness.constants import TEST_EXIT_CODE

    return bool(_expected(instance)[TEST_EXIT_CODE]) and TEST_EXIT_CODE not in log


def has_results_outside(instance: Instance, log: str) -> bool:
    """Whether the harness finds results only when it looks beyond the markers."""
    from swebench.harness.constants import END_TEST_OUTPUT, START_TEST_OUTPUT
    from swebench.harness.log_parsers import PARSER_REGISTRY

    from swebench_trainer.grading.official import test_spec

    if START_TEST_OUTPUT not in log or END_TEST_OUTPUT not in log:
        return False
    parse = PARSER_REGISTRY[instance.log_parser]
    spec = test_spec(instance)
    inside = log.split(START_TEST_OUTPUT)[1].split(END_TEST_OUTPUT)[0]
    return not parse(inside, spec) and bool(parse(log, spec))


def touches_tests(patch: str, test_patch: str) -> bool:
    """Whether a patch edits the test runner's files or files of the test patch."""
    tests = set(patched_paths(test_patch))
    return any(
        path in tests
        or PurePosixPath(path).name in RUNNER_FILES
        or path.endswith(".pth")
        for path in patched_paths(patch)
    )


def patched_paths(patch: str) -> Iterable[str]:
    """Every path that the headers of a diff name, without `a/` and `b/`.

    It errs on the side of too many: a line of a hunk may look like a header.
    """
    for header in _HEADER.finditer(patch):
        if header["both"]:
            for part in re.split(r" (?=\"?b/)", header["both"].rstrip("\r")):
                yield _without_prefix(part)
        elif header["file"]:
            path = header["file"].rstrip("\r").split("\t")[0]
            if path != "/dev/null":
                yield _without_prefix(path)
        else:
            yield _normal(header["moved"].rstrip("\r"))


def _without_prefix(path: str) -> str:
    """Strips the first component, as `-p1` does."""
    return _normal(path.strip('"').partition("/")[2])


def _normal(path: str) -> str:
    """The path as git names the file, whatever quotes and slashes are in it."""
    return str(PurePosixPath(path.strip('"')))


def _expected(instance: Instance) -> dict[str, int]:
    """How often an honest log holds each marker.

    The script runs under `set -x`: `: 'marker'` shows once, as the trace, and
    `echo 'marker'` twice, as the trace and as its output.
    """
    from swebench.harness.constants import (
        END_TEST_OUTPUT,
        START_TEST_OUTPUT,
        TEST_EXIT_CODE,
    )

    from swebench_trainer.grading.official import test_spec

    lines = test_spec(instance).eval_script_list
    return {
        marker: sum(
            2 if line.lstrip().startswith("echo") else 1
            for line in lines
            if marker in line
        )
        for marker in (START_TEST_OUTPUT, END_TEST_OUTPUT, TEST_EXIT_CODE)
    }
