"""A tiny issue in SWE-bench Pro's form: rows, evaluation checkout, repository.

The history has the fix in a later commit together with the tests, where Pro's grading
takes them from.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swebench_trainer.contracts import GradeJob
from swebench_trainer.data.pro import ProSource, ProTable
from swebench_trainer.grading.capped_log import CappedLog
from swebench_trainer.grading.sandbox import CommandResult, Evidence, Files
from swebench_trainer.types import Candidate, Instance

CALC = "def add(a, b):\n    return a - b\n"
FIXED = CALC.replace("a - b", "a + b")
WRONG = CALC.replace("a - b", "a * b")

CHECKS = '''\
"""Tests that print their status and name, some of them on stderr."""
import sys

from calc import add


def check(name, passed, file=sys.stdout):
    print("PASSED" if passed else "FAILED", name, file=file)


check("adds", add(2, 3) == 5)
check("keeps zero", add(0, 0) == 0)
check("says so", add(1, 1) == 2, sys.stderr)
'''
RUN_SCRIPT = """\
#!/bin/bash
set -uxo pipefail
IFS=, read -ra files <<< "${1-}"
for file in "${files[@]}"; do
\tPYTHONPATH=. python3 "$file"
done
"""
PARSER = '''\
"""Parser of statuses and names; names on stderr get a prefix."""
import json
import sys
from pathlib import Path


def read(path, prefix):
    with open(path) as file:
        for line in file.read().split("\\n"):
            status, space, name = line.partition(" ")
            if space and status in ("PASSED", "FAILED", "SKIPPED", "ERROR"):
                yield {"name": prefix + name, "status": status}


stdout, stderr, output = map(Path, sys.argv[1:])
tests = [*read(stdout, ""), *read(stderr, "stderr: ")]
with open(output, "w") as file:
    json.dump({"tests": tests}, file, indent=2)
'''
F2P = ["adds", "stderr: says so"]
P2P = ["keeps zero"]

WHO = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {
        "NAME": "swebench-trainer",
        "EMAIL": "swebench-trainer@localhost",
        "DATE": "2000-01-01T00:00:00+0000",
    }.items()
} | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder: Path, *arguments: str, text: str | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | WHO,
        input=text,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_files(folder: Path, files: dict[str, str]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)


@dataclass
class ProTask:
    """The contents of an instance; change them before calling `instance`.

    Attributes:
        base: Files of the base commit.
        fix: Files that the fix changes, without the tests.
        tests: Files that come with the fix.
        row: Columns that override those derived from the other attributes.
    """

    folder: Path
    base: dict[str, str] = field(default_factory=lambda: {"calc.py": CALC})
    fix: dict[str, str] = field(default_factory=lambda: {"calc.py": FIXED})
    tests: dict[str, str] = field(default_factory=lambda: {"tests/checks.py": CHECKS})
    run_script: str = RUN_SCRIPT
    parser: str = PARSER
    repo: str = "ACME/Calc"
    suffix: str = "-vnan"
    row: dict[str, Any] = field(default_factory=dict)

    def instance(self) -> Instance:
        """Builds the repository and the evaluation checkout, and reads the row."""
        commits = self.build_repository()
        row = self.make_row(*commits)
        scripts = self.folder / "evaluation" / "run_scripts" / row["instance_id"]
        write_files(
            scripts, {"run_script.sh": self.run_script, "parser.py": self.parser}
        )
        rows = self.folder / "rows.jsonl"
        rows.write_text(json.dumps(row) + "\n")
        table = ProTable(
            use="swebench-pro",
            path=str(rows),
            scripts=str(self.folder / "evaluation"),
        )
        loaded = ProSource(table).load()
        assert not loaded.dropped
        return loaded.instances[0]

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    def build_repository(self) -> tuple[str, str]:
        """Commits the base and the fix, and checks the base out."""
        here = self.repository
        here.mkdir()
        git(here, "-c", "init.defaultBranch=main", "init", "-q", ".")
        commits = []
        for files in (self.base, {**self.fix, **self.tests}):
            write_files(here, files)
            git(here, "add", "-A", "-f")
            git(here, "commit", "-q", "-m", "change")
            commits.append(git(here, "rev-parse", "HEAD").strip())
        git(here, "checkout", "-q", "--detach", commits[0])
        return commits[0], commits[1]

    def make_row(self, base: str, fix: str) -> dict[str, Any]:
        """The 16 columns, in the same form as in the dataset."""
        between = ("diff", "--binary", base, fix, "--")
        name = self.repo.replace("/", "__")
        return {
            "repo": self.repo,
            "instance_id": f"instance_{name}-{fix}{self.suffix}",
            "base_commit": base,
            "patch": git(self.repository, *between, *self.fix),
            "test_patch": git(self.repository, *between, *self.tests),
            "problem_statement": json.dumps("add subtracts.\n\nIt should not."),
            "requirements": json.dumps("- It should add."),
            "interface": "No new interfaces are introduced",
            "repo_language": "python",
            "fail_to_pass": repr(F2P),
            "pass_to_pass": json.dumps(P2P),
            "issue_specificity": '["major_bug"]',
            "issue_categories": '["back_end_knowledge"]',
            "before_repo_set_cmd": f"git reset --hard {base}\ngit clean -fd \n"
            f"git checkout {base} \ngit checkout {fix} -- {' '.join(self.tests)}",
            "selected_test_files_to_run": json.dumps(list(self.tests)),
            "dockerhub_tag": "",
            **self.row,
        }

    def patch(self, files: dict[str, str]) -> str:
        """The diff that changes the base commit's files to these."""
        here = self.repository
        git(here, "reset", "-q", "--hard")
        write_files(here, files)
        git(here, "add", "-A", "-f")
        patch = git(here, "diff", "--binary", "--cached")
        git(here, "reset", "-q", "--hard")
        return patch


def job(
    instance: Instance, patch: str, folder: Path, extraction: str = "ok"
) -> GradeJob:
    candidate = Candidate(instance.instance_id, 0, "model", "", patch, extraction)
    return GradeJob(instance, candidate, folder)


class LocalFactory:
    """A sandbox without isolation: container paths are in a folder of this machine.

    It shows the effect of scripts, for harmless patches only.
    """

    def __init__(self, task: ProTask, folder: Path, path: str = "") -> None:
        self.task = task
        self.folder = folder
        self.path = path or os.environ["PATH"]

    def environment(self, instance: Instance) -> Mapping[str, Any]:
        return {}

    @contextlib.contextmanager
    def open(self, job: GradeJob, files: Files) -> Iterator[LocalFactory]:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.task.repository, self.folder / "app", symlinks=True)
        for path, content in files.items():
            (self.folder / path).parent.mkdir(exist_ok=True)
            is_script = path.endswith(".sh")
            (self.folder / path).write_bytes(
                relocated(content.decode(), self.folder).encode()
                if is_script
                else content
            )
        yield self

    def apply(self, log: CappedLog) -> CommandResult:
        return self._run("sh", self.folder / "tmp" / "apply.sh", log)

    def test(self, log: CappedLog, timeout: float) -> CommandResult:
        return self._run("bash", self.folder / "eval.sh", log)

    def inspect(self, _: object) -> Evidence:
        return Evidence()

    def _run(self, shell: str, script: Path, log: CappedLog) -> CommandResult:
        done = subprocess.run(
            [shutil.which(shell), str(script)],
            cwd=self.folder / "app",
            env={"PATH": self.path, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        log.write(done.stdout)
        return CommandResult(done.returncode)


def relocated(script: str, folder: Path) -> str:
    """A script with the paths of a container replaced by a folder."""
    return re.sub(r"/(?=(?:workspace|app|tmp)\b)", f"{folder}/", script)


def official(
    task: ProTask, row: Mapping[str, Any], patch: str, folder: Path
) -> set[str]:
    """The tests that pass by SWE-bench Pro's own procedure, written out in one function."""
    shutil.copytree(task.repository, folder / "app", symlinks=True)
    write_files(
        folder / "workspace",
        {
            "patch.diff": patch,
            "run_script.sh": task.run_script,
            "parser.py": task.parser,
        },
    )
    files = ",".join(ast.literal_eval(row["selected_test_files_to_run"]))
    script = f"""
cd /app
git reset --hard {row["base_commit"]}
git checkout {row["base_commit"]}
git apply -v /workspace/patch.diff
{row["before_repo_set_cmd"].strip().split(chr(10))[-1]}
bash /workspace/run_script.sh {files} > /workspace/stdout.log 2> /workspace/stderr.log
python3 /workspace/parser.py /workspace/stdout.log /workspace/stderr.log /workspace/output.json
"""
    subprocess.run(
        ["bash", "-c", relocated(script, folder)],
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    output = folder / "workspace" / "output.json"
    if not output.exists():
        return set()
    tests = json.loads(output.read_text())["tests"]
    return {test["name"] for test in tests if test["status"] == "PASSED"}
