"""Renames that survive a power cut.

A rename may reach the disk before the contents of the renamed file. After a power cut
the file would then exist and be empty, so its contents are synced first.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Sync a file, or a directory and everything below it, to the disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync(child)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Rename a file or directory durably, after its contents.

    Args:
        source: The file or directory, in the same directory as `target`.
        target: The new path: missing, a file, or an empty directory.
    """
    sync(source)
    source.replace(target)
    sync_name(target)


def sync_name(path: Path) -> None:
    """Sync the directory entry of a file to the disk."""
    _sync_one(path.parent)
