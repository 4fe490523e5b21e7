"""`swebench-train cache`: what is kept for later, shown and removed."""

import os
import time

import pytest

from swebench_trainer.grading.cache import RunCache, set_aside
from swebench_trainer.grading.engine import Execution
from swebench_trainer.grading.official import TEST_LOG


@pytest.fixture
def filled(shell):
    path = shell.folder / "cache/swebench-trainer/runs.sqlite"
    memory = RunCache(path)
    (shell.folder / "logs").mkdir()
    for number in range(12):
        (shell.folder / "logs" / TEST_LOG).write_bytes(os.urandom(300))
        name = f"owner__project-{number % 3}"
        memory.keep([f"{number}"], Execution(), shell.folder / "logs", name)
    (shell.folder / "back").mkdir()
    memory.recall("7", shell.folder / "back")
    old = time.time() - 40 * 86400
    memory._database.execute("UPDATE runs SET used = ? WHERE id <= 4", (old,))
    memory.close()
    return path


def test_it_shows_what_is_kept_and_removes_some(shell, filled):
    out = " ".join(shell.run("cache").split())
    assert f"{filled}: 12 runs, " in out and ", 1 times used" in out
    assert "│ owner__project-1 │ 4 │" in out
    assert "4 runs removed" in shell.run("cache", "--prune-older-than", "30d")
    assert "0 runs removed" in shell.run("cache", "--prune-older-than", "30d")
    out = shell.run("cache", "--max-size", "1k")
    assert " runs removed" in out and "0 runs removed" not in out
    set_aside(filled).mkdir()
    out = shell.run("cache", "--clear")
    assert f"{filled}: 0 runs, 0 bytes, 0 times used" in out
    assert not set_aside(filled).exists()


def test_it_names_what_it_does_not_understand(shell, filled):
    out = shell.run("cache", "--max-size", "2 gigs", code=2)
    assert "--max-size takes amounts like 10k, 10m, 10g, not '2 gigs'" in out
    assert "12 runs" in shell.run("cache")


def test_nothing_kept_is_no_error(shell):
    assert "No test run is kept" in shell.run("cache")
    assert not (shell.folder / "cache").exists()


def test_a_cache_of_a_newer_version_is_shown_as_a_new_one(shell, filled):
    memory = RunCache(filled)
    memory._database.execute("PRAGMA user_version = 99")
    memory.close()
    assert ": 0 runs" in shell.run("cache")
    assert [p.name for p in set_aside(filled).iterdir()] == ["runs.sqlite.1"]
