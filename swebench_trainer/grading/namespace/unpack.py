"""Unpacks the archive of a root into a directory, and nowhere else."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from swebench_trainer.contents.archive import CHUNK, Stream
from swebench_trainer.errors import DataError


def unpack(chunks: Iterator[bytes], target: Path) -> None:
    """Unpacks an archive into an empty directory.

    Owners are kept where we are root; other users own all that they unpack.

    Args:
        chunks: The archive, piece by piece.
        target: The directory.

    Raises:
        DataError: The archive is damaged, or wants to write elsewhere.
    """
    top = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    folders: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []
    stream = Stream(chunks)
    file = io.BufferedReader(stream, CHUNK)
    try:
        with tarfile.open(fileobj=file, mode="r|", errors="surrogateescape") as archive:
            for member in archive:
                parts = _parts(member.name)
                if member.isdir():
                    folders.append((parts, member))
                if parts:
                    _unpack_one(archive, member, top, parts)
        stream.finish()
        # When they are full: some may not be written to, and a file changes the time.
        for parts, member in reversed(folders):
            with _folder_below(top, parts) as folder:
                _dress(folder, member)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"the image cannot be unpacked: {error}") from error
    finally:
        os.close(top)


def _unpack_one(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    top: int,
    parts: tuple[str, ...],
) -> None:
    """Unpacks one file, but for devices; directories are dressed later."""
    *above, name = parts
    with _folder_below(top, above) as folder:
        if member.isdir():
            with _folder_below(folder, [name]):
                return
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=folder)
            _own(name, member, folder)
        elif member.islnk():
            *source_above, source = _parts(member.linkname)
            with _folder_below(top, source_above) as source_folder:
                os.link(
                    source,
                    name,
                    src_dir_fd=source_folder,
                    dst_dir_fd=folder,
                    follow_symlinks=False,
                )
        elif member.isfifo():
            os.mkfifo(name, member.mode, dir_fd=folder)
            _own(name, member, folder)
        elif member.isfile():
            content = archive.extractfile(member)
            assert content is not None
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(name, flags, 0o600, dir_fd=folder)
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(content, file, CHUNK)
                file.flush()
                _dress(descriptor, member)


@contextlib.contextmanager
def _folder_below(top: int, parts: Sequence[str]) -> Iterator[int]:
    """Opens a directory, made if need be; a link on the way leads nowhere."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    folder = os.dup(top)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=folder)
            below = os.open(part, flags, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def _dress(descriptor: int, member: tarfile.TarInfo) -> None:
    """Gives an open file or directory its owner, mode and time."""
    if os.geteuid() == 0:
        os.fchown(descriptor, member.uid, member.gid)
    os.fchmod(descriptor, stat.S_IMODE(member.mode))
    os.utime(descriptor, (member.mtime, member.mtime))


def _own(name: str, member: tarfile.TarInfo, folder: int) -> None:
    """Gives what cannot be opened its owner and time."""
    if os.geteuid() == 0:
        os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
    times = (member.mtime, member.mtime)
    os.utime(name, times, dir_fd=folder, follow_symlinks=False)


def _parts(name: str) -> tuple[str, ...]:
    """The names on the way to a member.

    Raises:
        ValueError: The way leads out of the archive.
    """
    parts = PurePosixPath(name).parts
    if ".." in parts or "/" in parts[:1]:
        raise ValueError(f"{name} is outside")
    return parts
