"""What is in the user's cache, shown and removed: clones, indexes, image roots, runs."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from swebench_trainer.errors import TrainerError
from swebench_trainer.grading.cache import SqliteRunCache, cache_path, set_aside
from swebench_trainer.grading.namespace.root_cache import cached_roots, prune_roots
from swebench_trainer.store.cache import KINDS, PruneLimits, entries, prune, user_cache

_LARGEST = "those that take the most room"


def show_caches(limits: PruneLimits) -> Iterator[str | Table]:
    """Removes what is to be removed, and tells what was and what is left.

    Raises:
        TrainerError: The runs cannot be read or removed; the rest is done by then.
    """
    yield from _things(limits)
    yield from _roots(limits)
    yield from _runs(limits)


def _things(limits: PruneLimits) -> Iterator[str | Table]:
    """Whatever `store.cache` keeps."""
    if limits:
        removed = []
        for kind, name in KINDS.items():
            removed.append(f"{prune(user_cache(kind), limits)} {name}")
        yield f"{', '.join(removed)} removed; those that are written to stay"
    table = Table("kept")
    for name in ("number", "size"):
        table.add_column(name, justify="right")
    table.add_column("last used")
    for kind, name in KINDS.items():
        if found := entries(user_cache(kind)):
            size = decimal(sum(entry.size for entry in found))
            first, last = _day(found[0].used), _day(found[-1].used)
            used = first if first == last else f"{first} to {last}"
            table.add_row(name, str(len(found)), size, used)
    if table.rows:
        yield f"{user_cache()}:"
        yield table
    else:
        yield "No repository or index is kept."


def _roots(limits: PruneLimits) -> Iterator[str | Table]:
    if limits:
        removed = prune_roots(limits)
        yield f"{removed} image roots removed; those in use stay"
    roots = cached_roots()
    if not roots:
        yield "No image root is kept."
        return
    total = decimal(sum(root.size for root in roots))
    yield f"{roots[0].path.parent}: {len(roots)} image roots, {total}"
    table = Table("image", title=_LARGEST)
    table.add_column("size", justify="right")
    table.add_column("last used")
    for root in sorted(roots, key=lambda root: -root.size)[:10]:
        row = (", ".join(root.names), decimal(root.size), _day(root.used))
        table.add_row(*map(Text, row))
    yield table


def _runs(limits: PruneLimits) -> Iterator[str | Table]:
    path = cache_path()
    if path is None or not path.exists():
        yield "No test run is kept."
        return
    with contextlib.closing(SqliteRunCache(path)) as run_cache:
        if run_cache.path is None:
            raise TrainerError(f"{path} cannot be used; is the disk full?")
        if limits:
            try:
                removed = run_cache.prune(limits)
            except sqlite3.Error as error:
                raise TrainerError(
                    f"{path} cannot be pruned: {error}",
                    hint="Make room on the disk, or end what else uses it.",
                ) from error
            yield f"{removed} runs removed"
        if limits.unused_for is not None and limits.unused_for < 0:
            shutil.rmtree(set_aside(path), ignore_errors=True)
        yield from _kept_runs(run_cache)


def _kept_runs(run_cache: SqliteRunCache) -> Iterator[str | Table]:
    total = run_cache.totals()
    size = decimal(total.size)
    yield f"{run_cache.path}: {total.runs} runs, {size}, {total.hits} times used"
    if not total.runs:
        return
    yield f"made from {_day(total.oldest)} to {_day(total.newest)}"
    table = Table("instance", title=_LARGEST)
    for name in ("runs", "size", "times used"):
        table.add_column(name, justify="right")
    for name, mine in run_cache.totals_by_instance(10).items():
        row = (name, str(mine.runs), decimal(mine.size), str(mine.hits))
        table.add_row(*map(Text, row))
    yield table


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
