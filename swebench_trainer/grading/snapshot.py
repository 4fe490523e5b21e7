"""Turns an instance's snapshot, plain files, into the git repository they came from.

The commit is made with fixed names and dates, so that equal files give the equal
commit id everywhere; a task's `base_commit` is that id.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from swebench_trainer.errors import DataError, PrerequisiteError
from swebench_trainer.store.kept import user_cache
from swebench_trainer.types import Instance

WHO = "swebench-trainer"
WHEN = "2000-01-01T00:00:00+0000"


def snapshot_repository(instance: Instance) -> Path:
    """The repository of an instance, with `base_commit` as its only commit.

    It lies in the user's cache under the digest of its files; nobody may write to it.

    Raises:
        DataError: The files are missing, or are not those of `base_commit`.
        PrerequisiteError: There is no git.
    """
    source = Path(instance.snapshot)
    if not source.is_dir():
        raise DataError(f"{instance.instance_id}: no directory {source}.")
    repository = cache_dir() / snapshot_digest(source)
    if not repository.is_dir():
        _build(source, repository)
    head = _git(repository, "rev-parse", "HEAD")
    if head != instance.base_commit:
        raise DataError(
            f"{instance.instance_id}: the files in {source} are not those of its "
            f"base_commit {instance.base_commit}; as a commit they are {head}.",
            hint="Restore the files, or correct base_commit in the task.",
        )
    return repository


def cache_dir() -> Path:
    """Where the repositories are kept."""
    return user_cache("snapshots")


def snapshot_digest(source: Path) -> str:
    """Digest of the files' paths, modes and contents, the same on every machine."""
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
    """Files and links in a fixed order, without what Python may have cached."""
    for folder, subfolders, names in os.walk(source):
        subfolders.sort()
        links = [name for name in subfolders if Path(folder, name).is_symlink()]
        subfolders[:] = [n for n in subfolders if n != "__pycache__" and n not in links]
        for name in sorted([*names, *links]):
            yield Path(folder, name)


def _mode(path: Path) -> int:
    """The mode of a file as git knows it: it may be run, or not."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _build(source: Path, repository: Path) -> None:
    """Makes the repository beside its place and moves it there in one step."""
    repository.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=repository.parent, prefix=".new-") as scratch:
        new = Path(scratch, "repository")
        new.mkdir()
        for path in _files(source):
            target = new / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target, follow_symlinks=False)
            if not target.is_symlink():
                target.chmod(_mode(path))
        _git(new, "-c", "init.defaultBranch=main", "init", "-q", ".")
        _git(new, "-c", "core.autocrlf=false", "add", "-A", "-f")
        config = ("-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null")
        _git(new, *config, "commit", "-q", "-m", "base")
        try:
            new.rename(repository)
        except OSError:
            if not repository.is_dir():  # else another process was first
                raise


def _git(where: Path, *arguments: str) -> str:
    """Runs git without the user's configuration and returns what it prints."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {
            f"GIT_{role}_NAME": WHO,
            f"GIT_{role}_EMAIL": f"{WHO}@localhost",
            f"GIT_{role}_DATE": WHEN,
        }
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=where,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError as error:
        raise PrerequisiteError(
            "There is no git.", hint="Install it: apt-get install git"
        ) from error
    except subprocess.CalledProcessError as error:
        raise DataError(f"git {arguments[-1]} in {where}: {error.stderr}") from error
    return done.stdout.strip()
