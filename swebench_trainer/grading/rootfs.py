"""The roots of images: exported through Docker once, and used without it ever after.

Each lies in the user's cache under the id of its image, with the environment that the
image sets. Nobody but the user may look at it, since there are set-user-id programs in
it; nobody writes to it, because every sandbox writes to a layer of its own above it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import stat
import tarfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from swebench_trainer.errors import DataError, PrerequisiteError
from swebench_trainer.grading.containers import LABEL
from swebench_trainer.grading.hosts import Host
from swebench_trainer.grading.images import Images
from swebench_trainer.grading.leftovers import Claim, remove_leftovers
from swebench_trainer.grading.snapshot import cache_dir
from swebench_trainer.store.jsonl import read_json, write_json

CHUNK = 1 << 20
ABOUT = "image.json"


@dataclass(frozen=True)
class ImageRoot:
    """An exported image.

    Attributes:
        id: The image's digest.
        path: Its root.
        environment: What its `ENV` sets.
        workdir: Its `WORKDIR`; empty if it has none.
    """

    id: str
    path: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = ""


class ImageRoots:
    """The images whose roots this user has, or can get from Docker."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._names: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._host = Host("", 0)
        self._images: Images | None = None
        self._no_docker = ""
        self._ids: dict[str, str] = {}
        self._roots: dict[str, ImageRoot] = {}
        self._exports = ThreadPoolExecutor(1, "export")
        self._expected: set[str] = set()

    def check(self, name: str) -> None:
        """Finds out whether there is a way to an image, without taking it.

        Raises:
            PrerequisiteError: It has not been exported, and Docker does not answer.
        """
        if not _known_id(name) and not self._docker_answers():
            raise PrerequisiteError(
                f"The image {name} has not been exported on this machine, and Docker, "
                f"which could do it, does not answer: {self._no_docker}",
                hint="Start Docker once: what is exported then needs it no more.",
            )

    def expect(self, names: Iterable[str]) -> None:
        """Exports images in the background, before somebody waits for them."""
        for name in set(names) - self._expected:
            self._expected.add(name)
            self._exports.submit(self.root, name)  # who needs it meets its errors

    def image_id(self, name: str) -> str:
        """The digest of an image, which is pulled when nobody here has it.

        Raises:
            PrerequisiteError: See `check`.
            ImageError: It cannot be pulled.
        """
        if name not in self._ids:
            with self._alone(name):
                self._ids.setdefault(name, self._find(name))
        return self._ids[name]

    def root(self, name: str) -> ImageRoot:
        """The root of an image, exported by the first who asks.

        Raises:
            PrerequisiteError: See `check`.
            ImageError: It cannot be pulled.
            DataError: It is no root that can be unpacked.
        """
        image_id = self.image_id(name)
        if image_id not in self._roots:
            with self._alone(image_id):
                folder = _folder(image_id)
                if not folder.is_dir():
                    self._export(image_id, folder)
                _remember(name, image_id)
                self._roots[image_id] = _read(folder)
        return self._roots[image_id]

    def retry(self) -> None:
        """Forgets what could not be had, so that it is asked for again."""
        with self._lock:
            self._no_docker = ""
        if self._images is not None:
            self._images.retry()

    def close(self) -> None:
        """Lets go of the daemon."""
        self._stopped.set()
        self._exports.shutdown(cancel_futures=True)
        if self._images is not None:
            self._images.close()
        self._host.close()

    def _alone(self, name: str) -> threading.Lock:
        """The lock of an image: the others need not wait for it."""
        with self._lock:
            return self._names[name]

    def _docker_answers(self) -> bool:
        """Asks the daemon, once."""
        with self._lock:
            if self._images is None and not self._no_docker:
                self._no_docker = self._host.complaint()
                if not self._no_docker:
                    api = self._host.client.api
                    self._images = Images(api, {}, None, self._stopped)
                    remove_leftovers({self._host.daemon_id: api})
        return self._images is not None

    def _find(self, name: str) -> str:
        """Asks the daemon, then our own notes, then the registry."""
        from docker.errors import ImageNotFound

        self.check(name)
        known = _known_id(name)
        if not self._docker_answers() or self._images is None:
            return known
        try:
            return str(_api(self._host).inspect_image(name)["Id"])
        except ImageNotFound:
            return known or self._images.get(name).id

    def _export(self, image_id: str, folder: Path) -> None:
        """Unpacks an image beside its place and moves it there in one step."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.parent.chmod(0o700)
        with _alone(folder.with_suffix(".lock")):
            if folder.is_dir():  # another process was first
                return
            new = folder.with_suffix(".new")
            _remove_tree(new)  # what a killed process has left
            (new / "root").mkdir(parents=True)
            try:
                config = _api(self._host).inspect_image(image_id)["Config"]
                self._unpack(image_id, new / "root")
            except BaseException:  # whatever it is, half a root is of no use
                _remove_tree(new)
                raise
            variables = (variable.partition("=") for variable in config["Env"] or ())
            about = {
                "id": image_id,
                "environment": {name: value for name, _, value in variables},
                "workdir": config["WorkingDir"],
            }
            write_json(new / ABOUT, about)
            new.rename(folder)

    def _unpack(self, image_id: str, target: Path) -> None:
        """Unpacks an image through a container that is never started."""
        owner = uuid.uuid4().hex
        claim = Claim(owner)
        gone = False
        try:
            claim.add(self._host.daemon_id)
            api = _api(self._host)
            container = api.create_container(
                image_id, ["true"], entrypoint="", labels={LABEL: owner}
            )["Id"]
            try:
                unpack(api.export(container, CHUNK), target)
            finally:
                api.remove_container(container, v=True, force=True)
            gone = True
        finally:
            claim.release(empty=gone)


def _api(host: Host) -> Any:
    """The daemon's own interface, whose types nobody has written down."""
    return host.client.api


def unpack(chunks: Iterator[bytes], target: Path) -> None:
    """Unpacks the archive of a root into an empty directory, and nowhere else.

    Owners are kept where we are root; other users own all that they unpack.

    Args:
        chunks: The archive, piece by piece.
        target: The directory.

    Raises:
        DataError: The archive is damaged, or wants to write elsewhere.
    """
    top = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    folders: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []
    try:
        with (
            tarfile.open(
                fileobj=io.BufferedReader(_Stream(chunks), CHUNK),
                mode="r|",
                errors="surrogateescape",
            ) as archive,
        ):
            for member in archive:
                parts = _parts(member.name)
                if member.isdir():
                    folders.append((parts, member))
                if parts:
                    _unpack_one(archive, member, top, parts)
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


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file to read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lets one process at a time through."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _rootfs_dir() -> Path:
    return cache_dir().with_name("rootfs")


def _folder(image_id: str) -> Path:
    return _rootfs_dir() / image_id.replace(":", "-")


def _note(name: str) -> Path:
    return _rootfs_dir() / "names" / quote(name, safe="")


def _known_id(name: str) -> str:
    """The image that had the name when its root was last used; empty if none is here."""
    with contextlib.suppress(FileNotFoundError):
        image_id = _note(name).read_text()
        if _folder(image_id).is_dir():
            return image_id
    return ""


def _remember(name: str, image_id: str) -> None:
    _note(name).parent.mkdir(exist_ok=True)
    _note(name).write_text(image_id)


def _read(folder: Path) -> ImageRoot:
    about = read_json(folder / ABOUT)
    if about is None:
        raise DataError(
            f"There is no {ABOUT} in {folder}.", hint="Remove the directory."
        )
    return ImageRoot(
        about["id"], folder / "root", about["environment"], about["workdir"]
    )


def _remove_tree(folder: Path) -> None:
    """Removes a directory whose modes may forbid it to an ordinary user."""
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
    if folder.exists():
        shutil.rmtree(folder)
