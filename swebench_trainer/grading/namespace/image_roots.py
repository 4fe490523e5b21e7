"""Root filesystems of images, exported through Docker once and used without it later.

They are never written to: every sandbox writes to its own layer above. A root is an
entry of the user's cache under the digest of its image. Graders hold the locks of the
roots they use, shared with other graders, so that none is pruned in use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

from pydantic import TypeAdapter, ValidationError

from swebench_trainer.contents.archive import CHUNK
from swebench_trainer.errors import DataError, PrerequisiteError
from swebench_trainer.grading.docker.archives import DefaultDaemon
from swebench_trainer.grading.namespace.unpack import unpack
from swebench_trainer.store import cache
from swebench_trainer.store.jsonl import write_json
from swebench_trainer.store.locks import open_locked

ABOUT = "image.json"


@dataclass(frozen=True)
class ImageRoot:
    """An exported image.

    Attributes:
        id: The image's digest.
        path: Its root directory.
        environment: Variables set by its `ENV`.
    """

    id: str
    path: Path
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _About:
    """The description of a root, in a file next to it; `size` is in bytes on disk."""

    id: str
    size: int
    environment: dict[str, str]


_ABOUT_ADAPTER = TypeAdapter(_About)


@dataclass(frozen=True)
class CachedRoot(cache.CacheEntry):
    """A root in the cache.

    Attributes:
        names: The images with this root.
    """

    names: tuple[str, ...]


class RootCache:
    """The roots that a grader uses. They stay in the cache until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[int] = []

    def image_id(self, name: str) -> str:
        """Return the image that `name` last referred to, or "" if its root is missing."""
        with contextlib.suppress(FileNotFoundError):
            image_id = _name_file(name).read_text()
            if _root_dir(image_id).is_dir():
                return image_id
        return ""

    def take(self, name: str, image_id: str) -> ImageRoot | None:
        """Return the root of an image and keep it in the cache, or `None` if missing.

        Raises:
            DataError: The root is damaged.
        """
        folder = _root_dir(image_id)
        if not folder.is_dir():
            return None
        _protect_parent(folder)
        lock = open_locked(cache.lock_path(folder), shared=True)
        try:
            if not folder.is_dir():  # pruned in the meantime
                os.close(lock)
                return None
            about = _about(folder)
            os.utime(lock)
            _name_file(name).parent.mkdir(exist_ok=True)
            _name_file(name).write_text(image_id)
        except BaseException:
            os.close(lock)
            raise
        with self._lock:
            self._held.append(lock)
        return ImageRoot(about.id, folder / "root", about.environment)

    def make(self, image_id: str, export: Callable[[Path], Mapping[str, Any]]) -> None:
        """Export a root into the cache, unless another process already did.

        Args:
            image_id: The image.
            export: Fills an empty directory and returns the image's `Config`.
        """
        folder = _root_dir(image_id)
        _protect_parent(folder)
        with cache.write_lock(folder):
            if folder.is_dir():
                return
            new = cache.partial_path(folder)
            (new / "root").mkdir(parents=True)
            config = export(new / "root")
            variables = (text.partition("=") for text in config.get("Env") or ())
            environment = {name: value for name, _, value in variables}
            about = _About(image_id, cache.disk_size(new), environment)
            write_json(new / ABOUT, dataclasses.asdict(about))
            os.sync()  # after a power cut, a root has all of its files or is missing
            new.rename(folder)

    def close(self) -> None:
        """Release the roots."""
        with self._lock:
            while self._held:
                os.close(self._held.pop())


class ImageRoots:
    """Root filesystems of images, from this user's cache or from Docker."""

    def __init__(self) -> None:
        self._daemon = DefaultDaemon()
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._ids: dict[str, str] = {}
        self._roots: dict[str, ImageRoot] = {}
        self._root_cache = RootCache()
        self._exports = ThreadPoolExecutor(1, "export")
        self._prefetched: set[str] = set()

    def check(self, name: str) -> None:
        """Check that an image is exported or can be, without exporting it.

        Raises:
            PrerequisiteError: It is not exported, and Docker is unreachable.
        """
        if not self._root_cache.image_id(name) and self._daemon.images() is None:
            raise PrerequisiteError(
                f"The image {name} has not been exported on this machine yet, which "
                f"needs Docker, and Docker is unreachable: {self._daemon.problem}",
                hint="Start Docker and run again; exported images do not need it later.",
            )

    def prefetch(self, names: Iterable[str]) -> None:
        """Export images in the background, before they are needed."""
        for name in set(names) - self._prefetched:
            self._prefetched.add(name)
            # The caller that needs the image sees the error of its export.
            self._exports.submit(self.root, name)

    def image_id(self, name: str) -> str:
        """The digest of an image, which is pulled if it is missing.

        Raises:
            PrerequisiteError: See `check`.
            ImageError: It cannot be pulled.
        """
        if name not in self._ids:
            with self._alone(name):
                self._ids.setdefault(name, self._find(name))
        return self._ids[name]

    def root(self, name: str) -> ImageRoot:
        """The root filesystem of an image, exported by the first caller.

        Raises:
            PrerequisiteError: See `check`.
            ImageError: It cannot be pulled.
            DataError: It cannot be unpacked.
        """
        if name not in self._roots:
            image_id = self.image_id(name)
            with self._alone(image_id):
                while (root := self._root_cache.take(name, image_id)) is None:
                    self._root_cache.make(
                        image_id, functools.partial(self._export, image_id)
                    )
                self._roots[name] = root
        return self._roots[name]

    def stop(self) -> None:
        """Stop waiting for a registry."""
        self._daemon.stop()

    def retry(self) -> None:
        """Forget failures, so that unavailable images are requested again."""
        self._daemon.retry()

    def close(self) -> None:
        """Release the daemon and the root filesystems."""
        self.stop()
        self._exports.shutdown(cancel_futures=True)
        self._daemon.close()
        self._root_cache.close()

    def _alone(self, name: str) -> threading.Lock:
        """The lock of a name or an id, so that others do not wait."""
        with self._lock:
            return self._locks[name]

    def _find(self, name: str) -> str:
        """Look the image up on the daemon, then in the cache, then pull it."""
        from docker.errors import DockerException, ImageNotFound

        self.check(name)
        known = self._root_cache.image_id(name)
        if (images := self._daemon.images()) is None:
            return known
        try:
            return str(self._daemon.api.inspect_image(name)["Id"])
        except ImageNotFound:
            return known or images.get(name).id
        except (DockerException, OSError):  # the daemon was reachable earlier
            if not known:
                raise
            return known

    def _export(self, image_id: str, target: Path) -> Mapping[str, Any]:
        """Unpack an image through a container that is never started.

        Returns:
            The image's `Config`.
        """
        api = self._daemon.api
        with self._daemon.unstarted_container(image_id) as container:
            unpack(api.export(container, CHUNK), target)
        return cast("Mapping[str, Any]", api.inspect_image(image_id)["Config"])


def cached_roots() -> list[CachedRoot]:
    """List the roots in the cache, least recently used first."""
    files = _name_files()
    return [
        CachedRoot(
            entry.path,
            entry.size,
            entry.used,
            tuple(sorted(unquote(file.name) for file in files[entry.path.name])),
        )
        for entry in cache.entries(_roots_dir(), _recorded_size)
    ]


def prune_roots(
    limits: cache.PruneLimits, images: Collection[str] | None = None
) -> int:
    """Remove roots that no grader uses. See `store.cache.prune`.

    Args:
        limits: Which of them to remove.
        images: Only roots of these images; by default, all roots.
    """
    files = _name_files()

    def selected(root: Path) -> bool:
        names = {unquote(file.name) for file in files[root.name]}
        return images is None or (bool(names) and names.issubset(images))

    return cache.prune(
        _roots_dir(),
        limits,
        size_of=_recorded_size,
        remove_with=lambda root: files[root.name],
        only=selected,
    )


def _name_files() -> Mapping[str, list[Path]]:
    """Return the files of image names by the directory name of their root."""
    found = defaultdict(list)
    for file in _roots_dir().glob("names/*"):
        with contextlib.suppress(FileNotFoundError):  # removed in the meantime
            found[_root_dir(file.read_text()).name].append(file)
    return found


def _recorded_size(folder: Path) -> int:
    """Return the recorded size: walking through a root takes seconds."""
    try:
        return _about(folder).size
    except DataError:
        return 0


def _about(folder: Path) -> _About:
    """Read the description of a root.

    Raises:
        DataError: It is damaged.
    """
    try:
        return _ABOUT_ADAPTER.validate_json((folder / ABOUT).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise DataError(
            f"{folder / ABOUT} is damaged.",
            hint="Remove all unused roots with `swebench-train cache --clear`.",
        ) from error


def _protect_parent(folder: Path) -> None:
    """Hide the roots from other users: they contain set-user-ID programs."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)


def _roots_dir() -> Path:
    return cache.user_cache("rootfs")


def _root_dir(image_id: str) -> Path:
    return _roots_dir() / image_id.replace(":", "-")


def _name_file(name: str) -> Path:
    return _roots_dir() / "names" / quote(name, safe="")
