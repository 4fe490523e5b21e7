"""The exported roots on disk: where they lie, who uses them, which may go.

Each lies in the user's cache under the id of its image. Whoever uses one holds its lock
together with others; who makes or removes it holds that lock alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, unquote

from swebench_trainer.errors import DataError, StageError
from swebench_trainer.grading.snapshot import cache_dir
from swebench_trainer.store.jsonl import read_json, write_json
from swebench_trainer.store.kept import disk_size, remove

ABOUT = "image.json"


@dataclass(frozen=True)
class ImageRoot:
    """An exported image.

    Attributes:
        id: The image's digest.
        path: Its root.
        environment: What its `ENV` sets.
        size: Bytes that it takes on disk.
    """

    id: str
    path: Path
    environment: dict[str, str] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True)
class KeptRoot:
    """A root that may go when nobody uses it.

    Attributes:
        names: The images that it is the root of.
        size: Bytes that it takes on disk.
        used: When it was last taken, in seconds since 1970.
        folder: Where it lies.
    """

    names: tuple[str, ...]
    size: int
    used: float
    folder: Path


class KeptRoots:
    """The roots that a grader uses; they stay until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[TextIO] = []

    def image_id(self, name: str) -> str:
        """The image that had the name when its root was last used; empty if none is here."""
        with contextlib.suppress(FileNotFoundError):
            image_id = _note(name).read_text()
            if _folder(image_id).is_dir():
                return image_id
        return ""

    def take(self, name: str, image_id: str) -> ImageRoot | None:
        """The root of an image, which stays from now on; `None` if there is none.

        Raises:
            DataError: It is damaged.
        """
        folder = _folder(image_id)
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(_locked(folder, fcntl.LOCK_SH))
            if not folder.is_dir():
                return None
            about = _about(folder)
            root = ImageRoot(
                about["id"], folder / "root", about["environment"], about["size"]
            )
            os.utime(folder / ABOUT)
            _note(name).parent.mkdir(exist_ok=True)
            _note(name).write_text(image_id)
            stack.pop_all()  # it stays locked
        with self._lock:
            self._held.append(lock)
        return root

    def make(self, image_id: str, export: Callable[[Path], Mapping[str, Any]]) -> None:
        """Makes a root beside its place, and moves it there in one step.

        Args:
            image_id: The image. If another process was first, nothing is done.
            export: Fills an empty directory, and returns the image's `Config`.
        """
        folder = _folder(image_id)
        with _locked(folder, fcntl.LOCK_EX):
            if folder.is_dir():
                return
            new = _unfinished(folder)
            remove(new)  # what a killed process has left
            (new / "root").mkdir(parents=True)
            try:
                config = export(new / "root")
                variables = (text.partition("=") for text in config.get("Env") or ())
                about = {
                    "id": image_id,
                    "size": disk_size(new),
                    "environment": {name: value for name, _, value in variables},
                }
                write_json(new / ABOUT, about)
                os.sync()  # a power cut must not leave a root without its files
                new.rename(folder)
            except BaseException:  # whatever it is, half a root is of no use
                remove(new)
                raise

    def close(self) -> None:
        """Lets go of the roots."""
        with self._lock:
            while self._held:
                self._held.pop().close()


def kept_roots() -> list[KeptRoot]:
    """The roots of this user, the longest unused first."""
    names: dict[str, list[str]] = {}
    for note in _rootfs_dir().glob("names/*"):
        with contextlib.suppress(FileNotFoundError):  # removed in the meantime
            names.setdefault(note.read_text(), []).append(unquote(note.name))
    return sorted(_kept(names), key=lambda root: root.used)


def prune_roots(*, unused_for: float | None, max_size: int | None) -> int:
    """Removes roots that nobody uses, the longest unused first, and half ones.

    Args:
        unused_for: Seconds; what was not used since goes.
        max_size: Bytes that the roots may take together.

    Returns:
        The number of roots that were removed.
    """
    roots, now, removed = kept_roots(), time.time(), 0
    size = sum(root.size for root in roots)
    for root in roots:
        old = unused_for is not None and now - root.used > unused_for
        much = max_size is not None and size > max_size
        if (old or much) and _remove(root):
            size -= root.size
            removed += 1
    for half in _rootfs_dir().glob("*.new"):  # of an export that was killed
        with contextlib.suppress(BlockingIOError), _alone(half):
            remove(half)
    return removed


def _kept(names: Mapping[str, list[str]]) -> Iterator[KeptRoot]:
    for folder in _rootfs_dir().glob("sha256-*"):
        if folder.suffix or not folder.is_dir():
            continue
        try:
            used = (folder / ABOUT).stat().st_mtime
            size = _about(folder)["size"]
        except (OSError, DataError):  # damaged: it may go first
            used = size = 0
        mine = sorted(names.get(folder.name.replace("-", ":", 1), ()))
        yield KeptRoot(tuple(mine), size, used, folder)


def _about(folder: Path) -> dict[str, Any]:
    """What was written down of a root.

    Raises:
        DataError: It cannot be read.
    """
    about: dict[str, Any] | None = None
    with contextlib.suppress(StageError):
        about = read_json(folder / ABOUT)
    if about is None or not {"id", "environment", "size"} <= about.keys():
        raise DataError(
            f"{folder / ABOUT} is damaged.",
            hint="`swebench-train cache --clear` removes every root that is not used.",
        )
    return about


def _remove(root: KeptRoot) -> bool:
    """Removes a root unless somebody uses it or has removed it."""
    try:
        with _alone(root.folder):
            away = _unfinished(root.folder)
            remove(away)
            root.folder.rename(away)  # so that nobody finds half a root
            remove(away)
            for name in root.names:
                _note(name).unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _alone(folder: Path) -> TextIO:
    """The lock of a root that nobody else has.

    Raises:
        BlockingIOError: Somebody has it.
    """
    return _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _locked(folder: Path, how: int) -> TextIO:
    """The lock of a root, until the file is closed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # There are programs in it that make whoever runs them another user.
    folder.parent.chmod(0o700)
    lock = folder.with_suffix(".lock").open("w")
    try:
        fcntl.flock(lock, how)
    except BaseException:
        lock.close()
        raise
    return lock


def _rootfs_dir() -> Path:
    return cache_dir().with_name("rootfs")


def _folder(image_id: str) -> Path:
    return _rootfs_dir() / image_id.replace(":", "-")


def _unfinished(folder: Path) -> Path:
    return folder.with_suffix(".new")


def _note(name: str) -> Path:
    return _rootfs_dir() / "names" / quote(name, safe="")
