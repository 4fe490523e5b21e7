"""Sizes and digests of the files of a finished stage, to notice when one changes.

A later stage must not use a file that was shortened or damaged since. Small files are
always digested again. A large file is digested only if it was written after the record,
because weights take seconds per gigabyte. The record has no times, so that a run that
was killed and resumed has the same one as an undisturbed run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
LARGE = 64 << 20
"""Bytes from which a modification time before the record is trusted."""
_UNRECORDED = {"fingerprint.json", "stage.json", "timings.jsonl", "logs"}
"""The records themselves, and what equal runs do not have in common."""

Record = dict[str, dict[str, Any]]
"""Size, SHA-256 digest, and for JSONL the number of rows, by relative path."""


def record_files(folder: Path) -> Record:
    """Records every file of a stage's directory."""
    return {
        path.relative_to(folder).as_posix(): _facts(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _UNRECORDED & {*path.relative_to(folder).parts}
    }


def changes_of(
    folder: Path,
    record: Mapping[str, Mapping[str, Any]],
    recorded: int,
    wanted: Callable[[str], bool],
) -> Iterator[tuple[Path, str]]:
    """Yields each wanted file that is not as recorded, with the difference.

    Args:
        folder: The stage's directory.
        record: What `record_files` returned.
        recorded: Time of the record, in nanoseconds.
        wanted: Whether to check the file with this relative path.
    """
    for name, facts in record.items():
        path = folder / name
        if not wanted(name):
            continue
        if not path.is_file():
            yield path, "it is missing"
        elif difference := _difference(path, facts, recorded):
            yield path, difference


def _difference(path: Path, facts: Mapping[str, Any], recorded: int) -> str:
    """How a file differs from its record; empty if it does not."""
    status = path.stat()
    same_size = status.st_size == facts["size"]
    if same_size and status.st_size > LARGE and status.st_mtime_ns <= recorded:
        return ""
    if not same_size and "rows" not in facts:
        return f"it has {status.st_size} bytes instead of {facts['size']}"
    now = _facts(path)
    if now["sha256"] == facts["sha256"]:
        return ""
    if now.get("rows") != facts.get("rows"):
        return f"it has {now['rows']} rows instead of {facts['rows']}"
    return "its content is different"


def _facts(path: Path) -> dict[str, Any]:
    whole = hashlib.sha256()
    rows = 0
    status = path.stat()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            whole.update(part)
            rows += part.count(b"\n") if path.suffix == ".jsonl" else 0
    facts = {"size": status.st_size, "sha256": whole.hexdigest()}
    return facts | {"rows": rows} if path.suffix == ".jsonl" else facts
