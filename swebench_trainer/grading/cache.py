"""Cache of finished test runs: one SQLite file for all recipes of a user.

The cache stores executions and logs, never verdicts. A log of 20 MB compresses to about
5 MB in 0.2 s and is written in 30 ms, so logs are in the database as well, where a
killed process cannot leave them incomplete.

The cache saves time and affects no verdict: after any problem with it (a full disk, a
lock that is not released, a damaged file), the run is simply repeated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import sqlite3
import tempfile
import threading
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from swebench_trainer.grading.official import APPLY_LOG, TEST_LOG
from swebench_trainer.grading.sandbox import (
    EXECUTION_ADAPTER,
    Execution,
    NullCache,
    RunCache,
)
from swebench_trainer.recipe.models import GradeTable
from swebench_trainer.store.cache import PruneLimits, evict, user_cache
from swebench_trainer.store.locks import lock_shared, try_lock
from swebench_trainer.store.rundir import move_aside

VERSION = 1
"""Number of the schema, in the file's `user_version`."""

LOCK_SECONDS = 20.0
"""Timeout for another process's write, which takes a fraction of a second."""

LOGS = (APPLY_LOG, TEST_LOG)

MAX_LOG_BYTES = 64 << 20
"""More than a `CappedLog` can contain, even if each of its bytes was replaced."""

BUFFERED_USES = 500
"""Number of uses to count in memory before they are written."""

_SCHEMA = """
CREATE TABLE logs (
    digest TEXT PRIMARY KEY,
    content BLOB NOT NULL
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    instance TEXT NOT NULL,
    execution TEXT NOT NULL,
    apply_log TEXT REFERENCES logs (digest),
    test_log TEXT REFERENCES logs (digest),
    created REAL NOT NULL,
    used REAL NOT NULL,
    hits INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX runs_by_use ON runs (used);
CREATE INDEX runs_by_apply_log ON runs (apply_log);
CREATE INDEX runs_by_test_log ON runs (test_log);
CREATE TABLE keys (
    key TEXT PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX keys_by_run ON keys (run);
"""

_GET = """
SELECT runs.id, execution, apply_log, a.content, test_log, t.content
FROM keys JOIN runs ON runs.id = keys.run
LEFT JOIN logs AS a ON a.digest = apply_log
LEFT JOIN logs AS t ON t.digest = test_log
WHERE key = ?
"""

_KEEP_LOG = """
INSERT INTO logs VALUES (?, ?)
ON CONFLICT DO UPDATE SET content = excluded.content WHERE content != excluded.content
"""

_SIZED = """(
SELECT runs.*, coalesce(length(a.content), 0) + coalesce(length(t.content), 0) AS size
FROM runs
LEFT JOIN logs AS a ON a.digest = apply_log
LEFT JOIN logs AS t ON t.digest = test_log
)"""

_TOTALS = """
count(*), coalesce(sum(size), 0), coalesce(sum(hits), 0),
coalesce(min(created), 0), coalesce(max(created), 0)
"""

_DROP_UNREFERENCED = (
    "DELETE FROM runs WHERE NOT EXISTS (SELECT 1 FROM keys WHERE run = runs.id)",
    "DELETE FROM logs WHERE NOT EXISTS (SELECT 1 FROM runs WHERE apply_log = digest) "
    "AND NOT EXISTS (SELECT 1 FROM runs WHERE test_log = digest)",
)

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

log = logging.getLogger(__name__)


def open_run_cache(table: GradeTable) -> RunCache:
    """Open the run cache that a recipe asks for; the caller closes it."""
    if table.cache:
        return SqliteRunCache(cache_path())
    return SqliteRunCache(None) if table.dedupe == "tree" else NullCache()


def cache_path() -> Path | None:
    """Return the path of the user's run cache; `None` if there is no home directory."""
    try:
        return user_cache("runs.sqlite")
    except RuntimeError:
        return None


@dataclass(frozen=True)
class CacheTotals:
    """Totals of the cached runs of one instance, or of all.

    Attributes:
        runs: Number of runs.
        size: Bytes of their packed logs; logs that two runs share count twice.
        hits: Number of hits.
        oldest: Time of the first run, in seconds since 1970.
        newest: Time of the last run.
    """

    runs: int
    size: int
    hits: int
    oldest: float
    newest: float


@dataclass(frozen=True)
class _StoredRun:
    """A row to prune: its id, the bytes of its packed logs, and its last use."""

    id: int
    size: int
    used: float


class SqliteRunCache:
    """A run cache in a database that threads and processes share.

    Args:
        path: The file; `None` for a temporary one.

    Attributes:
        path: The file; `None` for a temporary one.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock: TextIO | None = None
        self._turn = threading.Lock()  # SQLite connections serve one thread at a time
        self._flights = weakref.WeakValueDictionary[str, threading.Lock]()
        self._uses: Counter[int] = Counter()
        self._database = self._open()

    def get(self, key: str, log_dir: Path) -> Execution | None:
        """See `RunCache.get`. A run that cannot be read is a miss."""
        database = self._database
        try:
            with self._turn:
                row = database.execute(_GET, (key,)).fetchone()
            if row is None:
                return None
            run, text, *logs = row
            execution = EXECUTION_ADAPTER.validate_json(text)
            _restore(zip(LOGS, logs[::2], logs[1::2], strict=True), log_dir)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._handle(error, database)
            return None
        self._note_use(run)
        return execution

    def put(
        self, keys: Sequence[str], execution: Execution, log_dir: Path, about: str
    ) -> None:
        """See `RunCache.put`. A run that cannot be written is dropped."""
        database, now = self._database, time.time()
        text = json.dumps(dataclasses.asdict(execution))
        try:
            logs = [_packed(log_dir / name) for name in LOGS]
            with self._writing(database):
                for packed in filter(None, logs):
                    database.execute(_KEEP_LOG, packed)
                digests = [packed and packed[0] for packed in logs]
                run = database.execute(
                    "INSERT INTO runs (instance, execution, apply_log, test_log, "
                    "created, used) VALUES (?, ?, ?, ?, ?, ?)",
                    (about, text, *digests, now, now),
                ).lastrowid
                database.executemany(
                    "INSERT OR REPLACE INTO keys VALUES (?, ?)",
                    [(key, run) for key in keys],
                )
        except (sqlite3.Error, OSError, ValueError) as error:
            self._handle(error, database)

    @contextmanager
    def single_flight(self, key: str) -> Iterator[bool]:
        """See `RunCache.single_flight`. Covers the threads of this process."""
        with self._turn:
            flight = self._flights.setdefault(key, threading.Lock())
        waits = not flight.acquire(blocking=False)
        if waits:
            flight.acquire()
        try:
            yield waits
        finally:
            flight.release()

    def close(self) -> None:
        """Write the counted uses and close the file."""
        self._write_uses()
        with self._turn:
            self._database.close()
            self._unlock()

    def totals(self) -> CacheTotals:
        """Return the totals of all runs."""
        with self._turn:
            (row,) = self._database.execute(f"SELECT {_TOTALS} FROM {_SIZED}")  # noqa: S608 - our own text
        return CacheTotals(*row)

    def totals_by_instance(self, limit: int) -> dict[str, CacheTotals]:
        """Return the totals of the largest instances."""
        with self._turn:
            rows = self._database.execute(
                f"SELECT instance, {_TOTALS} FROM {_SIZED} GROUP BY instance "  # noqa: S608 - our own text
                "ORDER BY 3 DESC, 1 LIMIT ?",
                (limit,),
            ).fetchall()
        return {name: CacheTotals(*row) for name, *row in rows}

    def prune(self, limits: PruneLimits) -> int:
        """Remove runs beyond the limits and return their space to the disk.

        Args:
            limits: Sizes are those of the packed logs; storing a run is a use.

        Returns:
            The number of removed runs.

        Raises:
            sqlite3.Error: The file is locked or damaged.
        """
        database = self._database

        def remove(run: _StoredRun) -> bool:
            database.execute("DELETE FROM runs WHERE id = ?", (run.id,))
            return True

        with self._writing(database):
            rows = database.execute(f"SELECT id, size, used FROM {_SIZED} ORDER BY id")  # noqa: S608 - constant text
            removed = evict([_StoredRun(*row) for row in rows], limits, remove)
            for query in _DROP_UNREFERENCED:
                database.execute(query)
        with self._turn:
            for command in ("incremental_vacuum", "wal_checkpoint(TRUNCATE)"):
                database.execute(f"PRAGMA {command}").fetchall()
        return removed

    def _note_use(self, run: int) -> None:
        """Count a use in memory: a rerun would otherwise write thousands of times."""
        with self._turn:
            self._uses[run] += 1
            full = len(self._uses) >= BUFFERED_USES
        if full:
            self._write_uses()

    def _write_uses(self) -> None:
        try:
            with self._writing(self._database):
                pass
        except sqlite3.Error as error:
            log.warning("could not count uses of the run cache: %s", error)

    @contextmanager
    def _writing(self, database: sqlite3.Connection) -> Iterator[None]:
        """Run a transaction that also writes the counted uses."""
        with self._turn:
            uses, now = self._uses, time.time()
            self._uses = Counter()
            database.execute("BEGIN IMMEDIATE")
            try:
                database.executemany(
                    "UPDATE runs SET hits = hits + ?, used = ? WHERE id = ?",
                    [(hits, now, run) for run, hits in uses.items()],
                )
                yield
                database.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back already.
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

    def _open(self, damage: str = "") -> sqlite3.Connection:
        """Open the file, or a temporary one if that fails."""
        if self.path is not None:
            try:
                return self._open_shared(self.path, damage)
            except (sqlite3.Error, OSError) as error:
                log.warning("could not open the run cache %s: %s", self.path, error)
                self._unlock()
                self.path = None
        database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        database.executescript(_SCHEMA)
        return database

    def _open_shared(self, path: Path, damage: str) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Held while the file is open: SQLite does not tolerate that a file in use is
        # replaced.
        self._lock = path.with_suffix(".lock").open("a")
        lock_shared(self._lock)
        if not path.exists():
            _create(path)
        if damage := damage or _unfit(path):
            try_lock(self._lock)
            aside = _set_aside(path)
            log.warning(
                "started a new run cache; the old one is now %s: %s", aside, damage
            )
            _create(path)
            lock_shared(self._lock)
        return _connect(path)

    def _handle(self, error: Exception, database: sqlite3.Connection) -> None:
        """Log a problem with the cache, and replace a damaged file."""
        log.warning("run cache error: %s: %s", type(error).__name__, error)
        with self._turn:
            if _is_damage(error) and database is self._database:
                database.close()
                self._unlock()
                self._database = self._open(damage=str(error))

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()


def set_aside(path: Path) -> Path:
    """Return the directory of replaced databases, which may be deleted at any time."""
    return path.with_suffix(".unfit")


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(
        path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
    )
    # A power cut may lose the last runs but does not damage the file.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA foreign_keys = ON")
    return database


def _create(path: Path) -> None:
    """Create the file under a temporary name, so that it is never seen incomplete."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as scratch:
        new = Path(scratch, path.name)
        database = sqlite3.connect(new)
        database.executescript(
            "PRAGMA synchronous = OFF; PRAGMA auto_vacuum = INCREMENTAL; "
            f"PRAGMA journal_mode = WAL; {_SCHEMA} PRAGMA user_version = {VERSION};"
        )
        database.close()
        with contextlib.suppress(FileExistsError):  # another process was first
            path.hardlink_to(new)


def _unfit(path: Path) -> str:
    """Return why the file cannot be used; "" if it can."""
    try:
        with contextlib.closing(_connect(path)) as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            return str(error)
        raise
    return "" if version == VERSION else f"its schema is {version}, not {VERSION}"


def _is_damage(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _set_aside(path: Path) -> Path:
    folder = set_aside(path)
    for suffix in ("-wal", "-shm"):  # first: they must not end up next to the new file
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            move_aside(beside, folder)
    return move_aside(path, folder)


def _restore(
    logs: Iterable[tuple[str, str | None, bytes | None]], log_dir: Path
) -> None:
    """Write logs, given by name, digest and packed content, if they are missing."""
    restored: list[Path] = []
    try:
        for name, digest, packed in logs:
            path = log_dir / name
            if digest is not None and not path.exists():
                restored.append(path)
                path.write_bytes(_unpacked(packed, digest))
    except BaseException:
        for path in restored:  # a partial log must not be taken for a complete one
            path.unlink(missing_ok=True)
        raise


def _packed(path: Path) -> tuple[str, bytes] | None:
    """Return the digest and packed content of a log, or `None` if it is missing.

    Raises:
        ValueError: The log is too large.
    """
    if not path.exists():
        return None
    if path.stat().st_size > MAX_LOG_BYTES:
        raise ValueError(f"{path} is too large to cache")
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest(), zlib.compress(content, 3)


def _unpacked(packed: bytes | None, digest: str) -> bytes:
    """Unpack a log.

    Raises:
        ValueError: The log is missing, damaged or too large.
    """
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed or b"", MAX_LOG_BYTES)
    except (zlib.error, TypeError) as error:
        raise ValueError(f"log {digest} is damaged: {error}") from error
    if not unpacker.eof or hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"log {digest} is damaged")
    return content
