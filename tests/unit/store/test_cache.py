"""The user's cache, with real folders, locks, links and processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from swebench_trainer.store.cache import (
    PruneLimits,
    entries,
    mark_used,
    partial_path,
    prune,
    remove,
    write_lock,
)

DAY = 86400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "things"


def make(folder: Path, name: str, *, days: float = 0, suffix: str = "") -> Path:
    """A thing of some 40 kB, a directory unless it has a suffix, unused for some days."""
    place = folder / f"{name * 16}{suffix}"
    with write_lock(place):
        new = partial_path(place)
        if suffix:
            new.write_bytes(os.urandom(40_000))
        else:
            (new / "closed").mkdir(parents=True)
            (new / "closed/file").write_bytes(os.urandom(40_000))
            (new / "closed").chmod(0o500)
        new.rename(place)
    age(place, days)
    return place


def age(place: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(place.with_suffix(".lock"), (then, then))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_entries_are_listed_by_their_last_use(folder: Path) -> None:
    new, old = make(folder, "a"), make(folder, "b", days=3, suffix=".zip")
    found = entries(folder)
    assert [entry.path for entry in found] == [old, new]
    assert all(40_000 <= entry.size < 70_000 for entry in found)
    assert [round((time.time() - entry.used) / DAY) for entry in found] == [3, 0]
    mark_used(old)
    assert [entry.path for entry in entries(folder)] == [new, old]


def test_writing_counts_as_a_use(folder: Path) -> None:
    place = make(folder, "a", days=3)
    with write_lock(place):
        pass
    assert entries(folder)[0].used > time.time() - DAY


def test_marking_a_missing_entry_used_creates_nothing(folder: Path) -> None:
    mark_used(folder / ("a" * 16))
    assert not folder.exists()
    assert entries(folder) == [] and prune(folder, PruneLimits(unused_for=-1)) == 0


def test_an_unused_entry_is_removed_with_its_lock(folder: Path) -> None:
    make(folder, "a", days=40)
    make(folder, "b", days=40, suffix=".zip")
    make(folder, "c", days=20)
    assert prune(folder, PruneLimits(unused_for=30 * DAY)) == 2
    assert names(folder) == ["c" * 16, "c" * 16 + ".lock"]


def test_the_least_recently_used_are_removed_until_the_rest_fits(folder: Path) -> None:
    make(folder, "a", days=1)
    make(folder, "b", days=3)
    kept_one = make(folder, "c")
    assert prune(folder, PruneLimits(max_size=80_000)) == 2
    assert [entry.path for entry in entries(folder)] == [kept_one]
    assert prune(folder, PruneLimits(max_size=80_000)) == 0


def test_an_entry_being_written_is_not_pruned(folder: Path) -> None:
    place = make(folder, "a", days=40)
    half = folder / ("b" * 16)
    with write_lock(place), write_lock(half):
        partial_path(half).mkdir()
        assert prune(folder, PruneLimits(unused_for=-1, max_size=0)) == 0
        assert partial_path(half).is_dir()
    assert prune(folder, PruneLimits(unused_for=-1)) == 1
    assert names(folder) == []


def _write_until_killed(place: Path, ready) -> None:
    with write_lock(place):
        partial_path(place).mkdir()
        ready.set()
        time.sleep(60)


def test_leftovers_of_a_killed_process_are_removed(folder: Path) -> None:
    place = folder / ("a" * 16)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_write_until_killed, args=(place, ready))
    process.start()
    assert ready.wait(30)
    prune(folder, PruneLimits(max_size=10**9))
    assert partial_path(place).is_dir()
    process.kill()
    process.join()
    assert prune(folder, PruneLimits(max_size=10**9)) == 0
    assert names(folder) == []


def test_a_failed_write_leaves_nothing(folder: Path) -> None:
    place = folder / ("a" * 16)
    with pytest.raises(ValueError, match="no network"), write_lock(place):
        partial_path(place).mkdir()
        raise ValueError("no network")
    assert names(folder) == []


def test_a_child_that_outlives_its_parent_keeps_the_lock(folder: Path) -> None:
    place = folder / ("a" * 16)
    with write_lock(place) as lock:
        partial_path(place).mkdir()
        program = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
    prune(folder, PruneLimits(unused_for=-1))
    assert partial_path(place).is_dir()
    program.kill()
    program.wait()
    prune(folder, PruneLimits(unused_for=-1))
    assert names(folder) == []


def test_writers_exclude_each_other_although_locks_are_removed(folder: Path) -> None:
    """A lock that was waited for may be gone from its place when it is had."""
    place, inside, most = folder / ("a" * 16), 0, 0

    def write() -> None:
        nonlocal inside, most
        for _ in range(40):
            with write_lock(place):  # makes nothing, so the lock goes each time
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and names(folder) == []


def test_links_are_not_followed(folder: Path, tmp_path: Path, caplog) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(bytes(100_000))
    before = (precious / "file").stat()
    folder.mkdir(parents=True)
    (folder / ("a" * 16)).symlink_to(precious)
    (folder / ("b" * 16 + ".new")).symlink_to(precious)
    (folder / ("c" * 16)).mkdir()
    (folder / ("c" * 16) / "link").symlink_to(precious)
    (folder / ("d" * 16)).mkdir()
    (folder / ("d" * 16 + ".lock")).symlink_to(precious / "file")
    assert all(entry.size < 20_000 for entry in entries(folder))
    assert prune(folder, PruneLimits(unused_for=-1)) == 2
    assert str(folder / ("d" * 16)) in caplog.text
    mark_used(folder / ("d" * 16))
    assert (precious / "file").stat() == before
    assert names(folder) == ["d" * 16, "d" * 16 + ".lock"]
    elsewhere = folder.with_name("elsewhere")
    elsewhere.symlink_to(folder)
    assert (
        entries(elsewhere) == []
        and prune(elsewhere, PruneLimits(unused_for=-1, max_size=0)) == 0
    )


def test_foreign_files_are_left_alone(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("mirrors", "README", "notes.zip", "A" * 16, ".new-abc"):
        (folder / name).mkdir()
    assert (
        prune(folder, PruneLimits(unused_for=-1, max_size=0)) == 0
        and entries(folder) == []
    )
    assert len(names(folder)) == 5


def test_removing_a_missing_path_is_not_an_error(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")
