"""The pytest plugin with the fixture `trainer`; enable it in your `conftest.py`.

pytest_plugins = ["swebench_trainer.testing.fixtures"]
"""

from __future__ import annotations

from pathlib import Path

import pytest

from swebench_trainer.testing.runs import Trainer


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Run recipes in a temporary directory, with a private cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "trainer"
    folder.mkdir()
    return Trainer(folder)
