from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import Task

from swebench_trainer.errors import DataError
from swebench_trainer.grading.snapshot import snapshot_repository
from swebench_trainer.store.cache import user_cache


def test_head_is_base_commit_and_the_tree_is_clean(task: Task) -> None:
    repository = snapshot_repository(task.instance)
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=repository, capture_output=True, text=True
    )
    assert status.stdout == ""
    assert (repository / "calc.py").read_text().startswith("def add")


def test_a_snapshot_is_built_once(task: Task) -> None:
    first = snapshot_repository(task.instance)
    stamp = first.stat().st_mtime_ns
    assert snapshot_repository(task.instance) == first
    assert first.stat().st_mtime_ns == stamp
    assert not list(user_cache("snapshots").glob("*.new"))


def test_the_users_git_configuration_does_not_matter(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        f"[core]\nautocrlf = true\nhooksPath = {hooks}\n[commit]\ngpgsign = true\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody else")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    snapshot_repository(task.instance)


def test_only_the_mode_that_git_knows_matters(task: Task) -> None:
    snapshot = Path(task.instance.snapshot)
    (snapshot / "calc.py").chmod(0o600)
    (snapshot / "__pycache__").mkdir()
    (snapshot / "__pycache__" / "calc.cpython-311.pyc").write_bytes(b"\0")
    snapshot_repository(task.instance)


def test_an_edited_snapshot_is_refused_not_served_stale(task: Task) -> None:
    snapshot_repository(task.instance)
    path = Path(task.instance.snapshot, "calc.py")
    path.write_text(path.read_text() + "\n# edited\n")
    with pytest.raises(DataError, match="not those of its base_commit"):
        snapshot_repository(task.instance)


def test_links_and_odd_names_are_kept(task: Task) -> None:
    snapshot = Path(task.instance.snapshot)
    (snapshot / "link").symlink_to("calc.py")
    (snapshot / "folder").mkdir()
    (snapshot / "folder" / "a b\u00e9,:.txt").write_text("x")
    (snapshot / "loop").symlink_to("folder")
    with pytest.raises(DataError) as refused:
        snapshot_repository(task.instance)
    head = refused.value.message.rsplit(" ", 1)[1].rstrip(".")
    instance = dataclasses.replace(task.instance, base_commit=head)
    repository = snapshot_repository(instance)
    assert (repository / "link").is_symlink()
    assert (repository / "loop").is_symlink()
    assert (repository / "folder" / "a b\u00e9,:.txt").read_text() == "x"


def test_a_missing_snapshot_is_an_error(task: Task) -> None:
    instance = dataclasses.replace(task.instance, snapshot="/nowhere/at/all")
    with pytest.raises(DataError, match="no directory"):
        snapshot_repository(instance)


def test_several_processes_can_share_the_cache(task: Task) -> None:
    code = (
        "import sys; from swebench_trainer.grading.snapshot import snapshot_repository\n"
        "from swebench_trainer.types import Instance\n"
        "i = Instance('t', 'r', sys.argv[2], '', '', snapshot=sys.argv[1])\n"
        "snapshot_repository(i)"
    )
    arguments = [task.instance.snapshot, task.instance.base_commit]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *arguments]) for _ in range(3)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
