"""Labels, tiers, counts, verdicts and pairs do not depend on the words of messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("reworded_run.py")


def run(folder: Path, *options: str) -> Any:
    command = [sys.executable, str(SCRIPT), str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_rewording_every_message_changes_no_result(tmp_path) -> None:
    plain, reworded = run(tmp_path / "plain"), run(tmp_path / "other", "reworded")
    assert len(plain["reasons"]) > 10
    assert all(r.startswith("other words ") for r in filter(None, reworded["reasons"]))
    assert plain["results"] == reworded["results"]
    outcomes = plain["results"]["outcomes"]
    assert set(outcomes) == {"ok", "repaired", "no_change", "malformed"}
    assert min(outcomes.values()) >= 5
    assert plain["results"]["pairs"]
