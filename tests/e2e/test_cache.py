"""`swebench-train cache`: entries are shown and removed."""

import contextlib
import os
import re
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from swebench_trainer.contents.repositories import Repositories
from swebench_trainer.data.pro import checkout
from swebench_trainer.errors import DataError
from swebench_trainer.grading.cache import SqliteRunCache, set_aside
from swebench_trainer.grading.namespace.image_roots import RootCache
from swebench_trainer.grading.official import TEST_LOG
from swebench_trainer.grading.sandbox import Execution
from swebench_trainer.prompts.retrieval import Searcher
from swebench_trainer.store.cache import write_lock


@pytest.fixture
def filled(shell):
    path = shell.folder / "cache/swebench-trainer/runs.sqlite"
    run_cache = SqliteRunCache(path)
    (shell.folder / "logs").mkdir()
    for number in range(12):
        (shell.folder / "logs" / TEST_LOG).write_bytes(os.urandom(300))
        name = f"owner__project-{number % 3}"
        run_cache.put([f"{number}"], Execution(), shell.folder / "logs", name)
    (shell.folder / "back").mkdir()
    run_cache.get("7", shell.folder / "back")
    old = time.time() - 40 * 86400
    run_cache._database.execute("UPDATE runs SET used = ? WHERE id <= 4", (old,))
    run_cache.close()
    return path


def test_test_runs_are_shown_and_removed(shell, filled):
    out = " ".join(shell.run("cache").split())
    assert f"{filled}: 12 test runs, " in out and ", used 1 times" in out
    assert "│ owner__project-1 │ 4 │" in out
    assert "removed 4 test runs" in shell.run("cache", "--prune-older-than", "30d")
    assert "removed 0 test runs" in shell.run("cache", "--prune-older-than", "30d")
    out = shell.run("cache", "--max-size", "1k")
    assert "removed 0 test runs" not in out and " test runs" in out
    set_aside(filled).mkdir()
    out = shell.run("cache", "--clear")
    assert f"{filled}: 0 test runs, 0 bytes, used 0 times" in out
    assert not set_aside(filled).exists()


def test_a_malformed_amount_is_named(shell, filled):
    out = shell.run("cache", "--max-size", "2 gigs", code=2)
    assert "--max-size takes amounts like 10k, 10m, 10g, not '2 gigs'" in out
    assert "12 test runs" in shell.run("cache")


def test_an_empty_cache_is_not_an_error(shell):
    out = shell.run("cache")
    assert "No repositories or indexes are cached" in out
    assert "No test runs are cached" in out and "No image roots are cached" in out
    assert not (shell.folder / "cache").exists()


def test_a_cache_of_a_newer_version_is_shown_as_a_new_one(shell, filled):
    run_cache = SqliteRunCache(filled)
    run_cache._database.execute("PRAGMA user_version = 99")
    run_cache.close()
    assert ": 0 test runs" in shell.run("cache")
    assert [p.name for p in set_aside(filled).iterdir()] == ["runs.sqlite.1"]


class Files(dict):
    """A tree in memory."""

    read = dict.get

    def mode(self, path: str) -> str:
        return "100644"

    def paths(self) -> list[str]:
        return sorted(self)


@pytest.fixture
def origin(shell, monkeypatch):
    """The address of a repository that is cloned, checked out and searched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shell.folder / "cache"))
    origin = shell.folder / "owner/name"
    origin.mkdir(parents=True)
    (origin / "a.py").write_bytes(os.urandom(30_000))
    who = ("-c", "user.name=a", "-c", "user.email=a@localhost")
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=origin, check=True)
    address = f"file://{origin}"
    checkout(address)
    Searcher().rank(Files({"a.py": b"alpha = 1"}), "alpha")
    read(address)
    return address


def read(address: str) -> bytes | None:
    """A file of the newest commit, out of a clone."""
    folder = address.removeprefix("file://")
    command = ["git", "-C", folder, "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with contextlib.closing(Repositories(address)) as clones:
        return clones.tree("owner/name", commit.strip()).read("a.py")


def test_clones_checkouts_and_indexes_are_shown_and_removed(shell, origin):
    cache = shell.folder / "cache/swebench-trainer"
    old = time.time() - 40 * 86400
    for lock in cache.glob("bm25/*.lock"):
        os.utime(lock, (old, old))
    today = time.strftime("%Y-%m-%d")
    out = shell.run("cache")
    for name in ("repositories", "evaluation repositories", "BM25 indexes"):
        assert re.search(rf"│ {name} +│ +1 │ +[\d.]+ kB │ ", out)
    assert out.count(today) == 2
    out = shell.run("cache", "--prune-older-than", "30d")
    assert "0 evaluation repositories, 1 BM25 indexes, 0 sets of generated" in out
    assert not any((cache / "bm25").iterdir())
    (clone,) = cache.glob("repositories/*.lock")
    with write_lock(clone.with_suffix("")):  # as during a long fetch
        out = shell.run("cache", "--max-size", "1k")
        assert "0 repositories, 1 evaluation repositories, 0 BM25 indexes" in out
        assert "being written are never removed" in out
    out = shell.run("cache", "--clear")
    assert "1 repositories, " in out and "No repositories or indexes are cached" in out
    assert read(origin)


@pytest.fixture
def roots(shell, monkeypatch):
    """Two image roots, of which the first has not been used for 40 days."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shell.folder / "cache"))

    def export(target: Path) -> dict[str, object]:
        (target / "closed").mkdir()
        (target / "closed/file").write_bytes(os.urandom(50_000))
        (target / "closed").chmod(0)
        return {"Env": ["PATH=/bin"]}

    kept = RootCache()
    for number in range(2):
        kept.make(f"sha256:{number}", export)
        root = kept.take(f"owner/image:{number}", f"sha256:{number}")
    kept.close()
    assert root.environment == {"PATH": "/bin"}
    folder = root.path.parents[1]
    old = time.time() - 40 * 86400
    os.utime(folder / "sha256-0.lock", (old, old))
    return folder


def test_image_roots_are_shown_and_removed(shell, roots):
    out = " ".join(shell.run("cache").split())
    assert f"{roots}: 2 image roots, " in out and "│ owner/image:0 │" in out
    assert "removed 1 image roots" in shell.run("cache", "--prune-older-than", "30d")
    assert [p.name for p in roots.glob("*/root")] == ["root"]
    assert "removed 0 image roots" in shell.run("cache", "--max-size", "1m")
    assert "removed 1 image roots" in shell.run("cache", "--max-size", "10k")
    assert list(roots.glob("sha256-*/*")) == list(roots.glob("names/*")) == []
    assert "No image roots are cached" in shell.run("cache")


def test_the_root_of_a_running_grader_stays(shell, roots):
    with contextlib.closing(RootCache()) as grader:
        assert grader.take("owner/image:1", "sha256:1")
        assert "removed 1 image roots" in shell.run("cache", "--clear")
        assert grader.take("owner/image:1", "sha256:1")
    assert "removed 1 image roots" in shell.run("cache", "--clear")


def test_a_killed_removal_is_finished_by_the_next_export(shell, roots):
    (roots / "sha256-1").rename(roots / "sha256-1.new")
    assert "sha256:1" not in shell.run("cache")
    kept = RootCache()
    assert kept.image_id("owner/image:1") == ""
    kept.make("sha256:1", lambda target: {"Env": None})
    assert kept.take("owner/image:1", "sha256:1").environment == {}
    kept.close()
    assert not (roots / "sha256-1.new").exists()


def test_leftovers_of_a_killed_process_are_removed(shell, roots):
    (roots / "sha256-1").rename(roots / "sha256-1.new")
    shell.run("cache", "--max-size", "9g")
    assert not (roots / "sha256-1.new").exists()


def test_a_running_export_is_not_pruned(shell, roots):
    def export(target: Path) -> dict[str, object]:
        shell.run("cache", "--clear")
        assert target.is_dir()
        return {}

    kept = RootCache()
    kept.make("sha256:2", export)
    assert kept.take("owner/image:2", "sha256:2").environment == {}
    kept.close()


def test_a_damaged_root_is_an_error_and_can_be_removed(shell, roots):
    (roots / "sha256-1/image.json").write_text("{")
    kept = RootCache()
    for _ in range(3):
        with pytest.raises(DataError, match=r"image\.json is damaged"):
            kept.take("owner/image:1", "sha256:1")
    assert kept._held == []
    assert "owner/image:1" in shell.run("cache")
    assert "removed 2 image roots" in shell.run("cache", "--clear")


def test_an_export_that_fails_leaves_nothing(shell, roots):
    def export(target: Path) -> dict[str, object]:
        (target / "half").mkdir(mode=0)
        raise OSError("the daemon has gone")

    kept = RootCache()
    with pytest.raises(OSError, match="has gone"):
        kept.make("sha256:3", export)
    assert kept.take("owner/image:3", "sha256:3") is None
    assert not list(roots.glob("sha256-3*/")) and kept._held == []


def test_image_roots_are_pruned_even_if_the_run_cache_cannot_be(shell, filled, roots):
    with contextlib.closing(sqlite3.connect(filled)) as other:
        other.execute(
            "CREATE TRIGGER no BEFORE DELETE ON runs BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        other.commit()
    out = shell.run("cache", "--clear", code=1)
    assert "cannot be pruned" in out and not list(roots.glob("sha256-*/"))
