from __future__ import annotations

from pathlib import Path

import pytest

from swebench_trainer.training.loop.checkpoints import newest_complete, seal


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "ref").mkdir(parents=True)
    (path / "weights").write_bytes(b"w" * 100)
    (path / "ref" / "weights").write_bytes(b"r" * 100)
    return path


def test_an_absent_folder_has_no_checkpoint(tmp_path):
    assert newest_complete(tmp_path / "absent") is None


def test_the_newest_checkpoint_has_the_highest_step(tmp_path):
    for step in (9, 100, 20):
        seal(checkpoint(tmp_path, step))
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-100"


def truncate(path: Path) -> None:
    (path / "weights").write_bytes(b"w" * 99)


def overwrite(path: Path) -> None:
    (path / "ref" / "weights").write_bytes(b"x" * 100)


def delete(path: Path) -> None:
    (path / "weights").unlink()


def never_sealed(path: Path) -> None:
    (path / "complete.json").unlink()


def half_sealed(path: Path) -> None:
    (path / "complete.json").write_text('{"weights": "')


@pytest.mark.parametrize(
    "damage", [truncate, overwrite, delete, never_sealed, half_sealed]
)
def test_a_broken_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    for step in (10, 20):
        seal(checkpoint(tmp_path, step))
    damage(tmp_path / "checkpoint-20")
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-20").exists()
