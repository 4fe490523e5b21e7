"""Turn an instance's snapshot, plain files, into a git repository.

The commit has a fixed author and date, so equal files have the same commit id on every
machine. A task's `base_commit` is that id.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from swebench_trainer.errors import DataError
from swebench_trainer.git import GitError, isolated_environment, run_git
from swebench_trainer.store.cache import cached, user_cache
from swebench_trainer.types import Instance

WHO = "swebench-trainer"
WHEN = "2000-01-01T00:00:00+0000"


def snapshot_repository(instance: Instance) -> Path:
    """Return a repository of an instance, with `base_commit` as its only commit.

    It is in the user's cache under the digest of its files. Do not write to it.

    Raises:
        DataError: The files are missing, or differ from `base_commit`.
        PrerequisiteError: git is not installed.
    """
    source = Path(instance.snapshot)
    if not source.is_dir():
        raise DataError(f"{instance.instance_id}: no directory {source}.")
    repository = cached(
        user_cache("snapshots", snapshot_digest(source)),
        lambda new, _: _build(source, new),
    )
    head = _git(repository, "rev-parse", "HEAD")
    if head != instance.base_commit:
        raise DataError(
            f"{instance.instance_id}: the files in {source} are not those of its "
            f"base_commit {instance.base_commit}; as a commit they are {head}.",
            hint="Restore the files, or correct base_commit in the task.",
        )
    return repository


def snapshot_digest(source: Path) -> str:
    """Return the digest of the files' paths, modes and contents."""
    digest = hashlib.sha256()
    for path in _files(source):
        linked = path.is_symlink()
        kind = "link" if linked else f"{_mode(path):o}"
        content = os.fsencode(path.readlink()) if linked else path.read_bytes()
        name = path.relative_to(source).as_posix().encode("utf-8", "surrogateescape")
        head = f"{kind} {len(name)} {len(content)} ".encode()
        digest.update(head + name + content)
    return digest.hexdigest()


def _files(source: Path) -> Iterator[Path]:
    """Iterate over files and links in a fixed order, without Python bytecode."""
    for folder, subfolders, names in os.walk(source):
        subfolders.sort()
        links = [name for name in subfolders if Path(folder, name).is_symlink()]
        subfolders[:] = [n for n in subfolders if n != "__pycache__" and n not in links]
        for name in sorted([*names, *links]):
            yield Path(folder, name)


def _mode(path: Path) -> int:
    """Return the mode that git records for a file: executable or not."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _build(source: Path, new: Path) -> None:
    """Commit the files of `source` in the new repository `new`."""
    new.mkdir()
    for path in _files(source):
        target = new / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target, follow_symlinks=False)
        if not target.is_symlink():
            target.chmod(_mode(path))
    _git(new, "-c", "init.defaultBranch=main", "init", "-q", ".")
    _git(new, "-c", "core.autocrlf=false", "add", "-A", "-f")
    _git(new, "-c", "commit.gpgsign=false", "commit", "-q", "-m", "base")


def _git(repository: Path, *arguments: str) -> str:
    """Run git as the fixed author, without the user's configuration."""
    who = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (
            ("NAME", WHO),
            ("EMAIL", f"{WHO}@localhost"),
            ("DATE", WHEN),
        )
    }
    try:
        output = run_git(
            "-C", str(repository), *arguments, env=isolated_environment(**who)
        )
    except GitError as error:
        raise DataError(f"{repository}: {error}") from error
    return output.decode().strip()
