"""Import plain files into a bare repository with `git fast-import`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from swebench_trainer.contents.archive import below, members, opened
from swebench_trainer.contents.objects import MAX_FILE
from swebench_trainer.contents.paths import is_safe
from swebench_trainer.git import (
    GitError,
    complaint,
    environment,
    fast_import_file,
    fast_import_path,
    git_dir,
    start_git,
)

_COMMIT = "commit {ref}\ncommitter contents <contents@localhost> 0 +0000\ndata 0\n"


def import_archive(chunks: Iterator[bytes], place: Path, ref: str, lock: int) -> None:
    """Import the files of an archive as the tree of a new ref.

    Imports regular files, hard links and symbolic links; skips unsafe names and every
    `.git`. The ref is created last, so it implies a complete tree.

    Args:
        chunks: The bytes of a tar archive of a directory.
        place: The bare repository.
        ref: Full name of the ref.
        lock: Descriptor of the repository's lock.

    Raises:
        ValueError: The archive is damaged, inconsistent or too large.
        GitError: git cannot store the files; the disk may be full.
    """
    names = _Names()
    with _fast_import(place, lock) as stream:
        stream.write(_COMMIT.format(ref=ref).encode())
        with opened(chunks) as archive:
            for path, member in members(archive):
                if is_safe(path):
                    _write(stream, archive, member, path, names)
        stream.write(b"done\n")


class _Names:
    """Names of the files and directories imported so far."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, path: str) -> None:
        """Add a file.

        Raises:
            ValueError: The path exists already, or leads through a file.
        """
        taken = path in self.files or path in self._folders
        self.files.add(path)
        above = path
        while not taken and "/" in above:
            above = above.rpartition("/")[0]
            taken = above in self.files
            self._folders.add(above)
        if taken:
            raise ValueError(f"the archive has two entries at {path}")


def _write(
    stream: IO[bytes],
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    path: str,
    names: _Names,
) -> None:
    """Write one file; skip devices, pipes and directories."""
    if member.islnk():
        source = below(member.linkname)
        if source in names.files:
            names.add(path)
            paths = (fast_import_path(source), fast_import_path(path))
            stream.write(b"C %s %s\n" % paths)
    elif member.issym():
        names.add(path)
        stream.write(fast_import_file(path, "120000", os.fsencode(member.linkname)))
    elif content := archive.extractfile(member):
        if member.size > MAX_FILE:
            raise ValueError(f"{path} has {member.size / 1e6:.0f} MB")
        names.add(path)
        mode = "100755" if member.mode & 0o100 else "100644"
        stream.write(fast_import_file(path, mode, content.read()))


@contextlib.contextmanager
def _fast_import(place: Path, lock: int) -> Iterator[IO[bytes]]:
    """Open the input of a `git fast-import`, which has no effect unless it ends with `done`."""
    with tempfile.TemporaryFile() as errors:
        process = start_git(
            git_dir(place),
            "fast-import",
            "--quiet",
            "--done",
            env=environment(),
            inherit=(lock,),
            stdin=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdin
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as stream:
                yield stream
        finally:
            failed = process.wait() != 0
            for report in place.glob("fast_import_crash_*"):
                report.unlink()
        if failed:
            errors.seek(0)
            raise GitError(f"git fast-import failed: {complaint(errors.read())}")
