"""`swebench-train cache`: the local caches, shown and pruned."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from swebench_trainer.errors import RecipeError, TrainerError
from swebench_trainer.grading.cache import SqliteRunCache, cache_path, set_aside
from swebench_trainer.grading.namespace.image_roots import cached_roots, prune_roots
from swebench_trainer.reporting.console import numbers, open_console, print_line
from swebench_trainer.store.cache import KINDS, PruneLimits, entries, prune, user_cache

_LARGEST = "largest entries"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"k": 10**3, "m": 10**6, "g": 10**9}


def execute(older_than: str | None, max_size: str | None, *, clear: bool) -> None:
    """Prunes the caches if requested, and shows what is left.

    Args:
        older_than: Remove entries unused for this long, such as `30d`.
        max_size: Remove the least recently used entries beyond this size per kind,
            such as `2g`.
        clear: Remove everything.

    Raises:
        RecipeError: An amount is malformed.
        TrainerError: Cached test runs cannot be read or removed.
    """
    age = -1 if clear else _amount(older_than, _SECONDS, "--prune-older-than")
    size = _amount(max_size, _BYTES, "--max-size")
    console = open_console()
    for part in prune_and_show(PruneLimits(age, size)):
        if isinstance(part, str):
            print_line(console, part)
        else:
            console.print(part)


def _amount(text: str | None, units: dict[str, int], option: str) -> int | None:
    """Parses an amount with a unit, such as `30d`, into the smallest unit."""
    if text is None:
        return None
    number, unit = text[:-1], text[-1:].lower()
    if number.isdecimal() and unit in units:
        return int(number) * units[unit]
    known = ", ".join(f"10{unit}" for unit in units)
    raise RecipeError(f"{option} takes amounts like {known}, not {text!r}.")


def prune_and_show(limits: PruneLimits) -> Iterator[str | Table]:
    """Prunes the caches, and describes what was removed and what is left.

    Raises:
        TrainerError: Cached test runs cannot be read or removed; all other caches have
            been pruned by then.
    """
    yield from _cached_directories(limits)
    yield from _image_roots(limits)
    yield from _test_runs(limits)


def _cached_directories(limits: PruneLimits) -> Iterator[str | Table]:
    """Clones, indexes, and other directories in the cache."""
    if limits:
        counts = {name: prune(user_cache(kind), limits) for kind, name in KINDS.items()}
        removed = [f"{count} {name}" for name, count in counts.items()]
        yield f"removed {', '.join(removed)}; entries being written are never removed"
    table = Table("cached", *numbers("count", "size"), "last used")
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
        yield "No repositories or indexes are cached."


def _image_roots(limits: PruneLimits) -> Iterator[str | Table]:
    if limits:
        removed = prune_roots(limits)
        yield f"removed {removed} image roots; those in use are never removed"
    roots = cached_roots()
    if not roots:
        yield "No image roots are cached."
        return
    total = decimal(sum(root.size for root in roots))
    yield f"{roots[0].path.parent}: {len(roots)} image roots, {total}"
    table = Table("image", *numbers("size"), "last used", title=_LARGEST)
    for root in sorted(roots, key=lambda root: -root.size)[:10]:
        row = (", ".join(root.names), decimal(root.size), _day(root.used))
        table.add_row(*map(Text, row))
    yield table


def _test_runs(limits: PruneLimits) -> Iterator[str | Table]:
    path = cache_path()
    if path is None or not path.exists():
        yield "No test runs are cached."
        return
    with contextlib.closing(SqliteRunCache(path)) as run_cache:
        if run_cache.path is None:
            raise TrainerError(
                f"{path} cannot be opened.",
                hint="Check that the disk is not full and that the file is writable.",
            )
        if limits:
            try:
                removed = run_cache.prune(limits)
            except sqlite3.Error as error:
                raise TrainerError(
                    f"{path} cannot be pruned: {error}",
                    hint="Free some disk space, or stop the process that uses the cache.",
                ) from error
            yield f"removed {removed} test runs"
        if limits.unused_for is not None and limits.unused_for < 0:
            shutil.rmtree(set_aside(path), ignore_errors=True)
        yield from _test_run_tables(run_cache)


def _test_run_tables(run_cache: SqliteRunCache) -> Iterator[str | Table]:
    total = run_cache.totals()
    size = decimal(total.size)
    yield f"{run_cache.path}: {total.runs} test runs, {size}, used {total.hits} times"
    if not total.runs:
        return
    yield f"oldest {_day(total.oldest)}, newest {_day(total.newest)}"
    table = Table("instance", *numbers("runs", "size", "hits"), title=_LARGEST)
    for name, mine in run_cache.totals_by_instance(10).items():
        row = (name, str(mine.runs), decimal(mine.size), str(mine.hits))
        table.add_row(*map(Text, row))
    yield table


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
