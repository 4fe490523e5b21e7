"""Safe unpacking of the archive of a root filesystem into a directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from swebench_trainer.contents.archive import CHUNK, opened
from swebench_trainer.errors import DataError


def unpack(chunks: Iterator[bytes], target: Path) -> None:
    """Unpack an archive into an empty directory.

    Owners are preserved if this process is root; otherwise it owns all files.

    Args:
        chunks: The archive in chunks.
        target: The directory.

    Raises:
        DataError: The archive is damaged, or would write outside the directory.
    """
    top = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    folders: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []
    try:
        with opened(chunks) as archive:
            for member in archive:
                parts = _parts(member.name)
                if member.isdir():
                    folders.append((parts, member))
                if parts:
                    _unpack_one(archive, member, top, parts)
        # After all files: a mode may forbid writing, and writing changes the time.
        for parts, member in reversed(folders):
            with _folder_below(top, parts) as folder:
                _set_metadata(folder, member)
    except (OSError, ValueError) as error:
        raise DataError(f"the image cannot be unpacked: {error}") from error
    finally:
        os.close(top)


def _unpack_one(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    top: int,
    parts: tuple[str, ...],
) -> None:
    """Unpack one member, except devices. Metadata of directories is set later."""
    *above, name = parts
    with _folder_below(top, above) as folder:
        if member.isdir():
            with _folder_below(folder, [name]):
                return
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=folder)
            _set_owner_and_time(name, member, folder)
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
            _set_owner_and_time(name, member, folder)
        elif member.isfile():
            content = archive.extractfile(member)
            assert content is not None
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(name, flags, 0o600, dir_fd=folder)
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(content, file, CHUNK)
                file.flush()
                _set_metadata(descriptor, member)


@contextlib.contextmanager
def _folder_below(top: int, parts: Sequence[str]) -> Iterator[int]:
    """Open a directory, creating it if needed, without following links."""
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


def _set_metadata(descriptor: int, member: tarfile.TarInfo) -> None:
    """Set owner, mode and time of an open file or directory."""
    if os.geteuid() == 0:
        os.fchown(descriptor, member.uid, member.gid)
    os.fchmod(descriptor, stat.S_IMODE(member.mode))
    os.utime(descriptor, (member.mtime, member.mtime))


def _set_owner_and_time(name: str, member: tarfile.TarInfo, folder: int) -> None:
    """Set owner and time of a file that cannot be opened."""
    if os.geteuid() == 0:
        os.chown(name, member.uid, member.gid, dir_fd=folder, follow_symlinks=False)
    times = (member.mtime, member.mtime)
    os.utime(name, times, dir_fd=folder, follow_symlinks=False)


def _parts(name: str) -> tuple[str, ...]:
    """The components of a member's path.

    Raises:
        ValueError: The path leads outside the archive.
    """
    parts = PurePosixPath(name).parts
    if ".." in parts or "/" in parts[:1]:
        raise ValueError(f"{name} is outside the archive")
    return parts
