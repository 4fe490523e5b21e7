from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import Task, make_task


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """Cache snapshots in a directory of this session."""
    base = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return make_task(tmp_path)


@pytest.fixture
def task_running(tmp_path: Path) -> Callable[[str], Task]:
    """Creates the task with another test command."""
    return lambda command: make_task(tmp_path, test_command=command)
