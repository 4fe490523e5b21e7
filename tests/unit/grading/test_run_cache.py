"""The run cache stores runs; damage to it never changes a verdict."""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest

from swebench_trainer.grading import cache
from swebench_trainer.grading.cache import SqliteRunCache, cache_path, open_run_cache
from swebench_trainer.grading.official import APPLY_LOG, TEST_LOG
from swebench_trainer.grading.sandbox import Evidence, Execution, NullCache
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.store.cache import PruneLimits

RUN = Execution(
    apply_code=0,
    tree="a" * 40,
    evidence=Evidence(("/usr/bin/git",), script_intact=False),
    seconds={"start": 0.1, "test": 2.5},
)
ODD = b"PASSED \xef\xbf\xbd\r\n\x00" + "é\u2028".encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "runs.sqlite"


@pytest.fixture
def folder(tmp_path: Path):
    """Creates log directories, empty or with both logs."""

    def make(name: str, test_log: bytes | None = None) -> Path:
        made = tmp_path / name
        made.mkdir(parents=True)
        if test_log is not None:
            (made / APPLY_LOG).write_bytes(b"applied\n")
            (made / TEST_LOG).write_bytes(test_log)
        return made

    return make


@pytest.fixture
def opened(path: Path):
    """Opens the cache, any number of times."""
    caches: list[SqliteRunCache] = []

    def open_cache(other: Path | None = None) -> SqliteRunCache:
        caches.append(SqliteRunCache(other or path))
        return caches[-1]

    yield open_cache
    for run_cache in caches:
        run_cache.close()


def keep(run_cache, folder, key="k", *, log=ODD, about="i-1", run=RUN) -> None:
    run_cache.put([key], run, folder(f"kept-{time.monotonic_ns()}", log), about)


def test_a_run_comes_back_with_its_logs_byte_for_byte(opened, folder) -> None:
    first = opened()
    keep(first, folder)
    first.close()
    second = opened()
    new = folder("new")
    assert second.get("k", new) == RUN
    assert (new / TEST_LOG).read_bytes() == ODD
    assert (new / APPLY_LOG).read_bytes() == b"applied\n"
    assert second.get("other", new) is None
    second.close()


def test_an_existing_log_is_not_overwritten(opened, folder) -> None:
    run_cache = opened()
    keep(run_cache, folder)
    new = folder("new")
    (new / APPLY_LOG).write_text("another patch, the same tree")
    assert run_cache.get("k", new) == RUN
    assert (new / APPLY_LOG).read_text() == "another patch, the same tree"
    assert (new / TEST_LOG).read_bytes() == ODD


def test_a_run_without_a_test_log_has_none(opened, folder) -> None:
    run_cache = opened()
    refused = Execution(apply_code=10, seconds={"apply": 0.1})
    made = folder("refused")
    (made / APPLY_LOG).write_text("error: no\n")
    run_cache.put(["k"], refused, made, "i-1")
    new = folder("new")
    assert run_cache.get("k", new) == refused
    assert not (new / TEST_LOG).exists()


def test_a_new_run_replaces_the_one_under_its_key_which_is_then_pruned(
    opened, folder
) -> None:
    run_cache = opened()
    later = dataclasses.replace(RUN, apply_code=10)
    keep(run_cache, folder, log=b"old")
    keep(run_cache, folder, log=b"new", run=later)
    new = folder("new")
    assert run_cache.get("k", new) == later
    assert (new / TEST_LOG).read_bytes() == b"new"
    assert run_cache.totals().runs == 2
    run_cache.prune(PruneLimits())
    assert run_cache.totals().runs == 1


def test_the_recipe_selects_the_run_cache(path, folder) -> None:
    caches = [
        open_run_cache(GradeTable(cache=True)),
        open_run_cache(GradeTable(cache=False)),
        open_run_cache(GradeTable(cache=False, dedupe="patch")),
        open_run_cache(GradeTable(cache=False, dedupe="off")),
    ]
    shared, private, *without = caches
    assert isinstance(shared, SqliteRunCache) and isinstance(private, SqliteRunCache)
    assert all(isinstance(run_cache, NullCache) for run_cache in without)
    before = cache_path().stat().st_size
    keep(private, folder, key=f"private to {path}")
    assert private.get(f"private to {path}", folder("a")) == RUN
    assert shared.get(f"private to {path}", folder("b")) is None
    assert cache_path().stat().st_size == before
    shared.close()
    private.close()


def test_without_a_home_runs_are_cached_until_the_end(monkeypatch, folder) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", _no_user)
    run_cache = open_run_cache(GradeTable())
    keep(run_cache, folder)
    assert run_cache.get("k", folder("new")) == RUN
    run_cache.close()


def _no_user(uid: int) -> pwd.struct_passwd:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def test_one_thread_at_a_time_works_on_a_key(opened) -> None:
    run_cache = opened()
    inside: list[str] = []

    def work(key: str) -> None:
        for _ in range(20):
            with run_cache.single_flight(key):
                assert key not in inside
                inside.append(key)
                time.sleep(0.0005)
                inside.remove(key)

    run_all([threading.Thread(target=work, args=(key,)) for key in "aaaabbbb"])
    assert not run_cache._flights, "keys without waiting threads take no memory"


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


HAMMER = """
import sys, threading
from pathlib import Path
from swebench_trainer.grading.cache import SqliteRunCache
from swebench_trainer.grading.sandbox import Execution
from swebench_trainer.grading.official import APPLY_LOG, TEST_LOG

path, folder, who, count = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
run_cache = SqliteRunCache(path)
wrong = []

def work(thread):
    for n in range(count):
        made = folder / f"{who}-{thread}-{n}"
        made.mkdir()
        (made / TEST_LOG).write_text(f"shared log {n}\\n" * 2000)
        execution = Execution(apply_code=0, tree=f"{n}", seconds={"test": 1.0})
        run_cache.put([f"{who}-{thread}-{n}", f"shared {n}"], execution, made, f"i-{n}")
        for key in (f"{who}-{thread}-{n}", f"shared {n}", f"shared {n - 1}"):
            back = folder / f"{who}-{thread}-{n}-{key.replace(' ', '_')}"
            back.mkdir()
            found = run_cache.get(key, back)
            number = key.split()[-1].split("-")[-1]
            if n and (found is None or found.tree != number
                      or (back / TEST_LOG).read_text() != f"shared log {number}\\n" * 2000):
                wrong.append(key)
        print(n, flush=True)

threads = [threading.Thread(target=work, args=(t,)) for t in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
run_cache.close()
sys.exit(1 if wrong else 0)
"""


def hammer(path: Path, folder: Path, who: str, count: int) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", HAMMER, str(path), str(folder), who, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_and_threads_share_one_file(opened, path, tmp_path) -> None:
    processes = [hammer(path, tmp_path / "logs", who, 15) for who in ("a", "b")]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and err == "", err
    run_cache = opened()
    run_cache.prune(PruneLimits())
    totals = run_cache.totals()
    # For shared keys the last run counts; each run also has its own key.
    assert totals.runs == 2 * 3 * 15
    assert totals.hits >= 2 * 3 * 14 * 3
    assert count_rows(run_cache, "logs") == 15, "equal logs are kept once"


def count_rows(run_cache: SqliteRunCache, table: str) -> int:
    return run_cache._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_a_killed_writer_leaves_only_complete_runs(opened, path, tmp_path) -> None:
    for number in range(4):
        process = hammer(path, tmp_path / f"logs-{number}", f"w{number}", 10_000)
        assert process.stdout is not None
        for _ in range(10 + 7 * number):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run_cache = opened()
    check = run_cache._database.execute("PRAGMA integrity_check").fetchone()[0]
    assert check == "ok"
    keys = [key for (key,) in run_cache._database.execute("SELECT key FROM keys")]
    assert len(keys) > 40
    for number, key in enumerate(keys[:60]):
        back = tmp_path / "back" / str(number)
        back.mkdir(parents=True)
        assert run_cache.get(key, back) is not None
        assert (back / TEST_LOG).exists()


@pytest.mark.parametrize("content", [b"", b"no database at all\n" * 999])
def test_a_file_that_is_no_database_is_set_aside(
    opened, path, folder, content, caplog
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    run_cache = opened()
    keep(run_cache, folder)
    assert run_cache.get("k", folder("new")) == RUN
    (aside,) = cache.set_aside(path).iterdir()
    assert aside.read_bytes() == content
    assert str(aside) in caplog.text


def test_a_database_of_another_version_is_set_aside(opened, path, folder) -> None:
    run_cache = opened()
    keep(run_cache, folder)
    run_cache._database.execute("PRAGMA user_version = 99")
    run_cache.close()
    run_cache = opened()
    assert run_cache.get("k", folder("new")) is None
    keep(run_cache, folder)
    assert run_cache.get("k", folder("newer")) == RUN
    assert [p.name for p in cache.set_aside(path).iterdir()] == ["runs.sqlite.1"]


def test_a_file_in_use_by_another_process_is_not_replaced(opened, path, folder) -> None:
    other = opened()
    other._database.execute("PRAGMA user_version = 99")
    run_cache = opened()  # works without the cache until its end
    keep(run_cache, folder)
    assert run_cache.get("k", folder("new")) == RUN
    assert other.get("k", folder("newer")) is None
    assert not cache.set_aside(path).exists()


def test_a_damaged_file_is_replaced(opened, path, folder) -> None:
    run_cache = opened()
    for number in range(50):
        keep(run_cache, folder, f"k{number}", log=os.urandom(9000))
    run_cache.close()
    size = path.stat().st_size
    with path.open("rb+") as file:  # all but the first page
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    run_cache = opened()
    assert run_cache.get("k7", folder("new")) is None
    assert not list(folder("new-2").parent.glob("new/*"))
    keep(run_cache, folder)
    assert run_cache.get("k", folder("newer")) == RUN
    run_cache.close()
    run_cache = opened()
    assert run_cache.get("k", folder("newest")) == RUN


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE logs SET content = x'00'",
        "UPDATE logs SET content = 'text'",
        "PRAGMA foreign_keys = OFF; DELETE FROM logs",
        "UPDATE runs SET execution = 'no json'",
        'UPDATE runs SET execution = \'{"apply_code": "x"}\'',
        "UPDATE runs SET execution = '[]'",
    ],
)
def test_a_damaged_run_is_a_miss_and_leaves_no_files(opened, folder, change) -> None:
    run_cache = opened()
    keep(run_cache, folder)
    run_cache._database.executescript(change)
    new = folder("new")
    assert run_cache.get("k", new) is None
    assert list(new.iterdir()) == []
    keep(run_cache, folder, log=b"made again")
    assert run_cache.get("k", new) == RUN


def test_a_log_that_unpacks_above_the_limit_is_a_miss(
    opened, folder, monkeypatch
) -> None:
    monkeypatch.setattr(cache, "MAX_LOG_BYTES", 100_000)
    run_cache = opened()
    keep(run_cache, folder)
    bomb = zlib.compress(bytes(50_000_000))
    run_cache._database.execute("UPDATE logs SET content = ?", (bomb,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run_cache.get("k", folder("new")) is None
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000, "KiB"
    keep(run_cache, folder, "large", log=bytes(100_001))
    assert run_cache.get("large", folder("newer")) is None


FULL = """
import resource, signal, sys
from pathlib import Path
from swebench_trainer.grading.cache import SqliteRunCache
from swebench_trainer.grading.sandbox import Execution
from swebench_trainer.grading.official import TEST_LOG
import os
run_cache = SqliteRunCache(Path(sys.argv[1]))
folder = Path(sys.argv[2])
(folder / TEST_LOG).write_bytes(os.urandom(300_000))
run_cache.put(["before"], Execution(), folder, "i")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
for number in range(5):
    (folder / TEST_LOG).write_bytes(os.urandom(300_000))
    run_cache.put([f"full {number}"], Execution(), folder, "i")
back = folder / "back"
back.mkdir()
print(run_cache.get("before", back), run_cache.get("full 4", back))
run_cache.close()
"""


def test_a_full_disk_loses_no_cached_run(opened, path, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{Execution()!r} None\n"
    run_cache = opened()
    assert run_cache._database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert run_cache.totals().runs >= 1


def test_grading_continues_if_the_cache_cannot_be_created(
    opened, tmp_path, folder
) -> None:
    (tmp_path / "file").write_text("no directory")
    run_cache = opened(tmp_path / "file" / "runs.sqlite")
    keep(run_cache, folder)
    assert run_cache.get("k", folder("new")) == RUN
    run_cache.close()


def test_a_lock_that_is_never_released_costs_only_a_cache_hit(
    opened, path, folder, monkeypatch
) -> None:
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.1)
    run_cache = opened()
    keep(run_cache, folder)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    keep(run_cache, folder, "while locked")
    assert run_cache.get("k", folder("a")) == RUN
    other.execute("ROLLBACK")
    assert run_cache.get("while locked", folder("b")) is None
    keep(run_cache, folder, "later")
    assert run_cache.get("later", folder("c")) == RUN
    other.close()


def test_uses_are_counted_without_a_write_each(opened, folder, monkeypatch) -> None:
    monkeypatch.setattr(cache, "BUFFERED_USES", 3)
    run_cache = opened()
    for key in "abc":
        keep(run_cache, folder, key)
    writes = run_cache._database.total_changes
    for number in range(50):
        run_cache.get("a", folder(f"{number}"))
    assert run_cache._database.total_changes == writes
    for key in "bc":
        run_cache.get(key, folder(key))
    assert run_cache.totals().hits == 52
    run_cache.get("a", folder("last"))
    run_cache.close()
    assert opened().totals().hits == 53


def test_pruning_by_age_and_size_removes_the_least_recently_used(
    opened, path, folder
) -> None:
    run_cache = opened()
    day = 24 * 3600
    for days, key in enumerate("abcd"):
        keep(run_cache, folder, key, log=os.urandom(100_000), about=f"i-{key}")
        query = "UPDATE runs SET used = ? WHERE instance = ?"
        run_cache._database.execute(query, (time.time() - days * day, f"i-{key}"))
    before = path.stat().st_size + path.with_name("runs.sqlite-wal").stat().st_size
    assert run_cache.totals_by_instance(2).keys() == {"i-a", "i-b"}
    assert run_cache.prune(PruneLimits(unused_for=2.5 * day)) == 1
    assert run_cache.prune(PruneLimits(max_size=250_000)) == 1
    assert [run_cache.get(k, folder(k)) for k in "abcd"] == [RUN, RUN, None, None]
    totals = run_cache.totals()
    assert (totals.runs, totals.size) == (2, pytest.approx(200_000, rel=0.01))
    after = path.stat().st_size + path.with_name("runs.sqlite-wal").stat().st_size
    assert after < before - 190_000, "the room is given back"
    assert run_cache.prune(PruneLimits(max_size=0)) == 2
    assert count_rows(run_cache, "logs") == count_rows(run_cache, "keys") == 0


def test_cached_rows_are_plain_json_and_logs(opened, folder) -> None:
    """The file contains no code: JSON and packed text, no pickles."""
    run_cache = opened()
    keep(run_cache, folder)
    (text,) = run_cache._database.execute("SELECT execution FROM runs").fetchone()
    assert json.loads(text)["evidence"]["changed"] == ["/usr/bin/git"]
