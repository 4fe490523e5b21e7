"""One tiny task: a module of two functions, one of them wrong, with its tests."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from swebench_trainer.contracts import GradeJob
from swebench_trainer.types import Candidate, Instance

CALC = """\
def add(a, b):
    return a - b


def double(a):
    return 2 * a
"""
TEST_BODY = """\
import unittest

from calc import add, double


class CalcTest(unittest.TestCase):
    def test_add(self):
        self.assertEqual(add(2, 3), 5)

    def test_double(self):
        self.assertEqual(double(4), 8)
"""


def diff(path: str, before: str | None, after: str) -> str:
    """A git-style diff that replaces all of one file, or adds it."""
    old = (before or "").splitlines(keepends=True)
    new = after.splitlines(keepends=True)
    header = (
        "new file mode 100644\n--- /dev/null" if before is None else f"--- a/{path}"
    )
    return (
        f"diff --git a/{path} b/{path}\n{header}\n+++ b/{path}\n"
        f"@@ -{min(1, len(old))},{len(old)} +1,{len(new)} @@\n"
        + "".join(f"-{line}" for line in old)
        + "".join(f"+{line}" for line in new)
    )


TEST_PATCH = diff("test_calc.py", None, TEST_BODY)
GOLD = diff("calc.py", CALC, CALC.replace("a - b", "a + b"))
WRONG = diff("calc.py", CALC, CALC.replace("a - b", "a * b"))
SYNTAX_ERROR = diff("calc.py", CALC, CALC.replace("return a - b", "return ("))
MALFORMED = "this is no diff\nat all\n"
NO_NEWLINE = GOLD.removesuffix("\n")
NEW_FILE = GOLD + diff("helpers/extra.py", None, "VALUE = 1\n")
HANGS = diff(
    "calc.py", CALC, "import signal, time\nsignal.signal(15, 1)\ntime.sleep(600)\n"
)

EVAL_SCRIPT = f"""\
#!/bin/bash
set -uxo pipefail
cd /testbed
git status
git apply -v - <<'EOF_114329324912'
{TEST_PATCH}EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest -v test_calc
: '>>>>> End Test Output'
rm -f test_calc.py
"""

ADD = "test_add (test_calc.CalcTest.test_add)"
DOUBLE = "test_double (test_calc.CalcTest.test_double)"


@dataclass(frozen=True)
class Task:
    """The task, in its own folder."""

    instance: Instance
    folder: Path

    def job(self, patch: str, *, extraction: str = "ok", name: str = "job") -> GradeJob:
        candidate = Candidate(
            self.instance.instance_id, 0, "model", "", patch, extraction
        )
        return GradeJob(self.instance, candidate, self.folder / "logs" / name)


def base_commit(files: Path) -> str:
    """The commit of the files, created by plain git commands."""
    who = {"NAME": "swebench-trainer", "EMAIL": "swebench-trainer@localhost"}
    who["DATE"] = "2000-01-01T00:00:00+0000"
    environment = dict(
        os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1"
    )
    environment |= {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in who.items()
    }
    script = """
        git -c init.defaultBranch=main init -q .
        git -c core.autocrlf=false add -A -f
        git -c commit.gpgsign=false -c core.hooksPath=/dev/null commit -q -m base
        git rev-parse HEAD
    """
    done = subprocess.run(
        ["sh", "-ec", script],
        cwd=files,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_task(folder: Path, *, test_command: str = "") -> Task:
    """Write the task; `test_command` replaces the unittest command."""
    for name in ("snapshot", "commit"):
        (folder / name).mkdir(parents=True)
        (folder / name / "calc.py").write_text(CALC)
    script = EVAL_SCRIPT
    if test_command:
        script = script.replace("python3 -m unittest -v test_calc", test_command)
    instance = Instance(
        instance_id="tiny__calc-1",
        repo="tiny/calc",
        base_commit=base_commit(folder / "commit"),
        problem_statement="add subtracts",
        patch=GOLD,
        test_patch=TEST_PATCH,
        version="1",
        image="swebench-trainer/tiny-calc:latest",
        eval_script=script,
        log_parser="parse_log_django",
        FAIL_TO_PASS=(ADD,),
        PASS_TO_PASS=(DOUBLE,),
        snapshot=str(folder / "snapshot"),
    )
    return Task(instance, folder)
