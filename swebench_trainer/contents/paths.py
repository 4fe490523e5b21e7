"""Untrusted paths."""

from __future__ import annotations

UNSAFE = "unsafe path"
"""Reason for rejecting a path that could lead out of the repository."""

_MAX_PATH_BYTES = 1024


def is_safe(path: str) -> bool:
    """Whether `check_path` accepts a path."""
    try:
        check_path(path)
    except ValueError:
        return False
    return True


def check_path(path: str) -> None:
    """Accept only paths that stay in the repository and out of its `.git`.

    Raises:
        ValueError: The path is absolute, has `..` or empty parts, names `.git`,
            has control characters or is too long for a file system.
    """
    parts = path.split("/")
    if (
        any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
        or not path.replace(" ", "_").isprintable()
        or len(path.encode("utf-8")) > _MAX_PATH_BYTES
    ):
        raise ValueError(UNSAFE)
