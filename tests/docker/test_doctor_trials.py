"""`swebench-train doctor` on a real task, compared with the unmodified harness."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from swebench_trainer.__main__ import run_command_line

pytestmark = [pytest.mark.slow, pytest.mark.docker]

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "build" / "realtasks"


@pytest.fixture(scope="module")
def tasks(docker_client: object) -> str:
    build = ["tests/realtasks/build.py", str(TASKS)]
    done = subprocess.run([sys.executable, *build], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    return str(TASKS)


@pytest.mark.stock
def test_doctor_runs_gold_no_op_and_parity(
    tasks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["doctor", "--data", tasks, "--sample", "1", "--stock"]
    assert run_command_line([*arguments, "--grader", "docker"]) == 0
    lines = capsys.readouterr().out
    assert "all 11 present" in lines
    assert "gold passes and no-op fails" in lines
    assert "all 2 statuses equal the harness's" in lines
    assert lines.count("resolved") == 4


@pytest.mark.parametrize("use", ["docker", "namespace"])
def test_doctor_reports_a_task_whose_gold_fails(
    use: str, tasks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its gold patch applies and fixes nothing."""
    row = json.loads((TASKS / "dataset.jsonl").read_text().splitlines()[0])
    row["patch"] = "--- /dev/null\n+++ b/nothing.txt\n@@ -0,0 +1 @@\n+nothing\n"
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    data = str(tmp_path / "rows.jsonl")
    assert run_command_line(["doctor", "--data", data, "--grader", use]) == 1
    assert f"gold of {row['instance_id']} is unresolved" in capsys.readouterr().out
