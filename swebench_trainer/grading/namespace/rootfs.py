"""Root filesystems of images, exported through Docker once and used without it later.

They are never written to: every sandbox writes to its own layer above.
"""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from swebench_trainer.contents.archive import CHUNK
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.docker.archives import DefaultDaemon
from swebench_trainer.grading.namespace.root_cache import ImageRoot, RootCache
from swebench_trainer.grading.namespace.unpack import unpack


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
