"""The run cache: what it holds, and that nothing that befalls it costs a verdict."""

from __future__ import annotations

import dataclasses
import json
import os
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
from swebench_trainer.grading.cache import RunCache, cache_path, open_memory
from swebench_trainer.grading.official import APPLY_LOG, TEST_LOG
from swebench_trainer.grading.sandbox import Evidence, Execution, Forgetful
from swebench_trainer.recipe.models import GradeTable

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
    """Makes log directories, empty or with both logs."""

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
    memories: list[RunCache] = []

    def open_cache(other: Path | None = None) -> RunCache:
        memories.append(RunCache(other or path))
        return memories[-1]

    yield open_cache
    for memory in memories:
        memory.close()


def keep(memory, folder, key="k", *, log=ODD, about="i-1", run=RUN) -> None:
    memory.keep([key], run, folder(f"kept-{time.monotonic_ns()}", log), about)


def test_a_run_comes_back_with_its_logs_byte_for_byte(opened, folder) -> None:
    first = opened()
    keep(first, folder)
    first.close()
    second = opened()
    new = folder("new")
    assert second.recall("k", new) == RUN
    assert (new / TEST_LOG).read_bytes() == ODD
    assert (new / APPLY_LOG).read_bytes() == b"applied\n"
    assert second.recall("other", new) is None
    second.close()


def test_a_log_that_is_there_stays(opened, folder) -> None:
    memory = opened()
    keep(memory, folder)
    new = folder("new")
    (new / APPLY_LOG).write_text("another patch, the same tree")
    assert memory.recall("k", new) == RUN
    assert (new / APPLY_LOG).read_text() == "another patch, the same tree"
    assert (new / TEST_LOG).read_bytes() == ODD


def test_a_run_without_a_test_log_has_none(opened, folder) -> None:
    memory = opened()
    refused = Execution(apply_code=10, seconds={"apply": 0.1})
    made = folder("refused")
    (made / APPLY_LOG).write_text("error: no\n")
    memory.keep(["k"], refused, made, "i-1")
    new = folder("new")
    assert memory.recall("k", new) == refused
    assert not (new / TEST_LOG).exists()


def test_the_last_run_under_a_key_counts_and_the_replaced_one_is_pruned(
    opened, folder
) -> None:
    memory = opened()
    later = dataclasses.replace(RUN, apply_code=10)
    keep(memory, folder, log=b"old")
    keep(memory, folder, log=b"new", run=later)
    new = folder("new")
    assert memory.recall("k", new) == later
    assert (new / TEST_LOG).read_bytes() == b"new"
    assert memory.kept().runs == 2
    memory.prune()
    assert memory.kept().runs == 1


def test_the_table_says_which_memory(path, folder) -> None:
    memories = [
        open_memory(GradeTable(cache=True)),
        open_memory(GradeTable(cache=False)),
        open_memory(GradeTable(cache=False, dedupe="patch")),
        open_memory(GradeTable(cache=False, dedupe="off")),
    ]
    shared, private, *without = memories
    assert isinstance(shared, RunCache) and isinstance(private, RunCache)
    assert all(isinstance(memory, Forgetful) for memory in without)
    before = cache_path().stat().st_size
    keep(private, folder, key=f"private to {path}")
    assert private.recall(f"private to {path}", folder("a")) == RUN
    assert shared.recall(f"private to {path}", folder("b")) is None
    assert cache_path().stat().st_size == before
    shared.close()
    private.close()


def test_without_a_home_runs_are_remembered_until_the_end(monkeypatch, folder) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", _no_home)
    memory = open_memory(GradeTable())
    keep(memory, folder)
    assert memory.recall("k", folder("new")) == RUN
    memory.close()


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_one_thread_at_a_time_works_on_a_key(opened) -> None:
    memory = opened()
    inside: list[str] = []

    def work(key: str) -> None:
        for _ in range(20):
            with memory.alone(key):
                assert key not in inside
                inside.append(key)
                time.sleep(0.0005)
                inside.remove(key)

    run_all([threading.Thread(target=work, args=(key,)) for key in "aaaabbbb"])
    assert memory._queues == {}, "keys that nobody waits for take no memory"


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


HAMMER = """
import sys, threading
from pathlib import Path
from swebench_trainer.grading.cache import RunCache
from swebench_trainer.grading.sandbox import Execution
from swebench_trainer.grading.official import APPLY_LOG, TEST_LOG

path, folder, who, count = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
memory = RunCache(path)
wrong = []

def work(thread):
    for n in range(count):
        made = folder / f"{who}-{thread}-{n}"
        made.mkdir()
        (made / TEST_LOG).write_text(f"shared log {n}\\n" * 2000)
        execution = Execution(apply_code=0, tree=f"{n}", seconds={"test": 1.0})
        memory.keep([f"{who}-{thread}-{n}", f"shared {n}"], execution, made, f"i-{n}")
        for key in (f"{who}-{thread}-{n}", f"shared {n}", f"shared {n - 1}"):
            back = folder / f"{who}-{thread}-{n}-{key.replace(' ', '_')}"
            back.mkdir()
            found = memory.recall(key, back)
            number = key.split()[-1].split("-")[-1]
            if n and (found is None or found.tree != number
                      or (back / TEST_LOG).read_text() != f"shared log {number}\\n" * 2000):
                wrong.append(key)
        print(n, flush=True)

threads = [threading.Thread(target=work, args=(t,)) for t in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
memory.close()
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
    memory = opened()
    memory.prune()
    kept = memory.kept()
    # Of the shared keys the last run counts; each run has a key of its own too.
    assert kept.runs == 2 * 3 * 15
    assert kept.hits >= 2 * 3 * 14 * 3
    assert count_rows(memory, "logs") == 15, "equal logs are kept once"


def count_rows(memory: RunCache, table: str) -> int:
    return memory._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_a_writer_that_is_killed_leaves_whole_runs(opened, path, tmp_path) -> None:
    for number in range(4):
        process = hammer(path, tmp_path / f"logs-{number}", f"w{number}", 10_000)
        assert process.stdout is not None
        for _ in range(10 + 7 * number):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    memory = opened()
    check = memory._database.execute("PRAGMA integrity_check").fetchone()[0]
    assert check == "ok"
    keys = [key for (key,) in memory._database.execute("SELECT key FROM keys")]
    assert len(keys) > 40
    for number, key in enumerate(keys[:60]):
        back = tmp_path / "back" / str(number)
        back.mkdir(parents=True)
        assert memory.recall(key, back) is not None
        assert (back / TEST_LOG).exists()


@pytest.mark.parametrize("content", [b"", b"no database at all\n" * 999])
def test_a_file_that_is_no_database_is_set_aside(
    opened, path, folder, content, caplog
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    memory = opened()
    keep(memory, folder)
    assert memory.recall("k", folder("new")) == RUN
    (aside,) = cache.set_aside(path).iterdir()
    assert aside.read_bytes() == content
    assert str(aside) in caplog.text


def test_a_database_of_another_version_is_set_aside(opened, path, folder) -> None:
    memory = opened()
    keep(memory, folder)
    memory._database.execute("PRAGMA user_version = 99")
    memory.close()
    memory = opened()
    assert memory.recall("k", folder("new")) is None
    keep(memory, folder)
    assert memory.recall("k", folder("newer")) == RUN
    assert [p.name for p in cache.set_aside(path).iterdir()] == ["runs.sqlite.1"]


def test_a_file_that_another_process_uses_is_not_set_aside(
    opened, path, folder
) -> None:
    other = opened()
    other._database.execute("PRAGMA user_version = 99")
    memory = opened()  # does without it, until its end
    keep(memory, folder)
    assert memory.recall("k", folder("new")) == RUN
    assert other.recall("k", folder("newer")) is None
    assert not cache.set_aside(path).exists()


def test_a_file_that_turns_out_damaged_is_replaced(opened, path, folder) -> None:
    memory = opened()
    for number in range(50):
        keep(memory, folder, f"k{number}", log=os.urandom(9000))
    memory.close()
    size = path.stat().st_size
    with path.open("rb+") as file:  # all but the first page
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    memory = opened()
    assert memory.recall("k7", folder("new")) is None
    assert not list(folder("new-2").parent.glob("new/*"))
    keep(memory, folder)
    assert memory.recall("k", folder("newer")) == RUN
    memory.close()
    memory = opened()
    assert memory.recall("k", folder("newest")) == RUN


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
def test_a_damaged_run_is_missed_and_leaves_nothing(opened, folder, change) -> None:
    memory = opened()
    keep(memory, folder)
    memory._database.executescript(change)
    new = folder("new")
    assert memory.recall("k", new) is None
    assert list(new.iterdir()) == []
    keep(memory, folder, log=b"made again")
    assert memory.recall("k", new) == RUN


def test_a_log_that_unpacks_to_a_giant_is_missed(opened, folder, monkeypatch) -> None:
    monkeypatch.setattr(cache, "MAX_LOG_BYTES", 100_000)
    memory = opened()
    keep(memory, folder)
    bomb = zlib.compress(bytes(50_000_000))
    memory._database.execute("UPDATE logs SET content = ?", (bomb,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert memory.recall("k", folder("new")) is None
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000, "KiB"
    keep(memory, folder, "large", log=bytes(100_001))
    assert memory.recall("large", folder("newer")) is None


FULL = """
import resource, signal, sys
from pathlib import Path
from swebench_trainer.grading.cache import RunCache
from swebench_trainer.grading.sandbox import Execution
from swebench_trainer.grading.official import TEST_LOG
import os
memory = RunCache(Path(sys.argv[1]))
folder = Path(sys.argv[2])
(folder / TEST_LOG).write_bytes(os.urandom(300_000))
memory.keep(["before"], Execution(), folder, "i")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
for number in range(5):
    (folder / TEST_LOG).write_bytes(os.urandom(300_000))
    memory.keep([f"full {number}"], Execution(), folder, "i")
back = folder / "back"
back.mkdir()
print(memory.recall("before", back), memory.recall("full 4", back))
memory.close()
"""


def test_a_full_disk_keeps_nothing_and_loses_nothing(opened, path, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{Execution()!r} None\n"
    memory = opened()
    assert memory._database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert memory.kept().runs >= 1


def test_a_cache_that_cannot_be_made_is_done_without(opened, tmp_path, folder) -> None:
    (tmp_path / "file").write_text("no directory")
    memory = opened(tmp_path / "file" / "runs.sqlite")
    keep(memory, folder)
    assert memory.recall("k", folder("new")) == RUN
    memory.close()


def test_a_lock_that_is_not_released_costs_a_run_only(
    opened, path, folder, monkeypatch
) -> None:
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.1)
    memory = opened()
    keep(memory, folder)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    keep(memory, folder, "while locked")
    assert memory.recall("k", folder("a")) == RUN
    other.execute("ROLLBACK")
    assert memory.recall("while locked", folder("b")) is None
    keep(memory, folder, "later")
    assert memory.recall("later", folder("c")) == RUN
    other.close()


def test_uses_are_counted_without_a_write_each(opened, folder, monkeypatch) -> None:
    monkeypatch.setattr(cache, "USES_HELD", 3)
    memory = opened()
    for key in "abc":
        keep(memory, folder, key)
    writes = memory._database.total_changes
    for number in range(50):
        memory.recall("a", folder(f"{number}"))
    assert memory._database.total_changes == writes
    for key in "bc":
        memory.recall(key, folder(key))
    assert memory.kept().hits == 52
    memory.recall("a", folder("last"))
    memory.close()
    assert opened().kept().hits == 53


def test_pruning_by_age_and_size_takes_the_longest_unused_first(
    opened, path, folder
) -> None:
    memory = opened()
    day = 24 * 3600
    for days, key in enumerate("abcd"):
        keep(memory, folder, key, log=os.urandom(100_000), about=f"i-{key}")
        query = "UPDATE runs SET used = ? WHERE instance = ?"
        memory._database.execute(query, (time.time() - days * day, f"i-{key}"))
    before = path.stat().st_size + path.with_name("runs.sqlite-wal").stat().st_size
    assert memory.kept_by_instance(2).keys() == {"i-a", "i-b"}
    assert memory.prune(unused_for=2.5 * day) == 1
    assert memory.prune(max_size=250_000) == 1
    assert [memory.recall(k, folder(k)) for k in "abcd"] == [RUN, RUN, None, None]
    kept = memory.kept()
    assert (kept.runs, kept.size) == (2, pytest.approx(200_000, rel=0.01))
    after = path.stat().st_size + path.with_name("runs.sqlite-wal").stat().st_size
    assert after < before - 190_000, "the room is given back"
    assert memory.prune(max_size=0) == 2
    assert count_rows(memory, "logs") == count_rows(memory, "keys") == 0


def test_what_is_kept_is_plain(opened, folder) -> None:
    """Nothing in the file can run: JSON and packed text, no pickles."""
    memory = opened()
    keep(memory, folder)
    (text,) = memory._database.execute("SELECT execution FROM runs").fetchone()
    assert json.loads(text)["evidence"]["changed"] == ["/usr/bin/git"]
