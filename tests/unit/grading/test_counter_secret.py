"""The secret of counter-runs: one file per user, private, created once."""

from __future__ import annotations

import multiprocessing
import stat

import pytest

from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.counter.secret import ranking


@pytest.fixture
def key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "swebench-trainer" / "counter-runs.key"


def test_the_secret_is_private_and_created_once(key):
    first = ranking()("issue", "patch")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    content = key.read_bytes()
    assert ranking()("issue", "patch") == first
    assert key.read_bytes() == content
    assert [path.name for path in key.parent.iterdir()] == [key.name]


def test_users_have_different_secrets(key, monkeypatch, tmp_path):
    first = ranking()("issue", "patch")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "of another user"))
    assert ranking()("issue", "patch") != first


def test_a_readable_secret_is_made_private(key):
    ranking()
    key.chmod(0o644)
    ranking()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def _rank(_):
    return ranking()("issue", "patch")


def test_processes_that_start_together_share_one_secret(key):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        assert len(set(pool.map(_rank, range(32)))) == 1


def test_a_damaged_secret_names_the_file(key):
    key.parent.mkdir(parents=True)
    key.write_bytes(b"short")
    with pytest.raises(PrerequisiteError, match=r"counter-runs\.key"):
        ranking()


def test_a_directory_that_cannot_be_created_names_the_way_out(key):
    key.parent.parent.write_text("a file")
    with pytest.raises(PrerequisiteError) as caught:
        ranking()
    assert "counter_runs = false" in (caught.value.hint or "")
