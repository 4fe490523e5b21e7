"""Files that a power cut cannot take back.

A rename may reach the disk before the bytes of what was renamed: after a power cut
there is then a file of the right name and of no content. What others rely on is
therefore written out first.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Waits until a file, or a directory with all that is below it, is on the disk."""
    if path.is_dir():
        for child in path.iterdir():
            sync(child)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Gives a file or directory its name, after its content and for good.

    Args:
        source: Beside `target`.
        target: Must not be there, or be a file or an empty directory.
    """
    sync(source)
    source.replace(target)
    sync_name(target)


def sync_name(path: Path) -> None:
    """Waits until the name of a file is on the disk, which its directory holds."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
