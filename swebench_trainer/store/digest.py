"""Digests of settings and files, for fingerprints and cache keys."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def digest(value: Any) -> str:
    """Return the digest of a value that JSON can represent."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_path(path: Path) -> str:
    """Return the digest of a file, or of the names and contents of all files in a directory."""
    whole = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if not file.is_file() or "__pycache__" in file.parts:
                continue
            whole.update(file.relative_to(path).as_posix().encode() + b"\0")
            whole.update(_file_digest(file))
    else:
        whole.update(_file_digest(path))
    return whole.hexdigest()[:16]


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
