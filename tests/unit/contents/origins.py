"""Real repositories, made out of nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

WHO = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "a"), ("EMAIL", "a@localhost"))
}


def git(place: Path, *arguments: str, text: str | bytes = "") -> str:
    """Run git and require success."""
    done = subprocess.run(
        ["git", "-C", place, *arguments],
        input=text.encode() if isinstance(text, str) else text,
        env=os.environ | WHO | {"GIT_CONFIG_GLOBAL": "/dev/null"},
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def commit_index(place: Path, entries: Mapping[bytes, tuple[str, bytes | str]]) -> str:
    """Commit entries that a file system may not be able to hold.

    Args:
        place: The repository.
        entries: Path → mode, and content or (for submodules) the commit.
    """
    git(place, "read-tree", "--empty")
    lines = []
    for path, (mode, content) in entries.items():
        if isinstance(content, bytes):
            content = git(place, "hash-object", "-w", "--stdin", text=content)
        lines.append(f"{mode} {content} 0\t".encode() + path)
    git(place, "update-index", "-z", "--index-info", text=b"\0".join([*lines, b""]))
    return commit_tree(place, git(place, "write-tree"))


def commit_tree(place: Path, tree: str, *parents: str) -> str:
    """Commit a tree, and point `main` to it."""
    above = [word for parent in parents for word in ("-p", parent)]
    commit = git(place, "commit-tree", "-m", "it", *above, tree)
    git(place, "update-ref", "refs/heads/main", commit)
    return commit
