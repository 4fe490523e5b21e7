"""What the tests of contents share: real repositories, and a cache of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from origins import git

from swebench_trainer.contents.repositories import Repositories


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "swebench-trainer" / "repositories"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """An empty bare repository at the place of `owner/name`."""
    place = tmp_path / "origins" / "owner" / "name"
    place.mkdir(parents=True)
    git(place, "init", "-q", "--bare", "-b", "main")
    return place


@pytest.fixture
def clones(origin: Path) -> Iterator[Repositories]:
    """Repositories that are cloned from the location of `origin`."""
    repositories = Repositories(f"file://{origin.parents[1]}/{{repo}}")
    yield repositories
    repositories.close()
