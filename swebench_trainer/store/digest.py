"""Digests of settings and of files, for fingerprints and caches."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def digest(value: Any) -> str:
    """Digest of a JSON-able value; equal values give equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_path(path: Path) -> str:
    """Digest of a file's bytes, or of the names and bytes of all files below a directory."""
    whole = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if _counts(p)):
            whole.update(file.relative_to(path).as_posix().encode() + b"\0")
            whole.update(_file_digest(file))
    else:
        whole.update(_file_digest(path))
    return whole.hexdigest()[:16]


def _counts(path: Path) -> bool:
    """Whether a file is content: not what running Python leaves behind."""
    return path.is_file() and "__pycache__" not in path.parts


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
