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
from swebench_trainer.grading.docker.archives import unstarted_container
from swebench_trainer.grading.docker.containers import ignore_docker_errors
from swebench_trainer.grading.docker.hosts import Host
from swebench_trainer.grading.docker.images import Images
from swebench_trainer.grading.docker.orphans import remove_orphans
from swebench_trainer.grading.namespace.root_cache import ImageRoot, RootCache
from swebench_trainer.grading.namespace.unpack import unpack


class ImageRoots:
    """Root filesystems of images, from this user's cache or from Docker."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._host = Host("", 0)
        self._images: Images | None = None
        self._no_docker = ""
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
        if not self._root_cache.image_id(name) and not self._docker_responds():
            raise PrerequisiteError(
                f"The image {name} has not been exported on this machine yet, which "
                f"needs Docker, and Docker is unreachable: {self._no_docker}",
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
        self._stopped.set()

    def retry(self) -> None:
        """Forget failures, so that unavailable images are requested again."""
        self._stopped.clear()
        with self._lock:
            self._no_docker = ""
        if self._images is not None:
            self._images.retry()

    def close(self) -> None:
        """Release the daemon and the root filesystems."""
        self.stop()
        self._exports.shutdown(cancel_futures=True)
        if self._images is not None:
            self._images.close()
        self._host.close()
        self._root_cache.close()

    def _alone(self, name: str) -> threading.Lock:
        """The lock of a name or an id, so that others do not wait."""
        with self._lock:
            return self._locks[name]

    def _docker_responds(self) -> bool:
        """Whether the daemon is reachable; connects once."""
        with self._lock:
            if self._images is None and not self._no_docker:
                self._no_docker = self._host.connection_error()
                if not self._no_docker:
                    api = self._host.client.api
                    self._images = Images(api, {}, None, self._stopped)
                    with ignore_docker_errors():
                        remove_orphans({self._host.daemon_id: api})
        return self._images is not None

    def _find(self, name: str) -> str:
        """Look the image up on the daemon, then in the cache, then pull it."""
        from docker.errors import DockerException, ImageNotFound

        self.check(name)
        known = self._root_cache.image_id(name)
        if not self._docker_responds() or self._images is None:
            return known
        try:
            return str(_api(self._host).inspect_image(name)["Id"])
        except ImageNotFound:
            return known or self._images.get(name).id
        except (
            DockerException,
            OSError,
        ):  # the daemon was reachable earlier, but is not now
            if not known:
                raise
            return known

    def _export(self, image_id: str, target: Path) -> Mapping[str, Any]:
        """Unpack an image through a container that is never started.

        Returns:
            The image's `Config`.
        """
        api = _api(self._host)
        with unstarted_container(self._host, image_id) as container:
            unpack(api.export(container, CHUNK), target)
        return cast("Mapping[str, Any]", api.inspect_image(image_id)["Config"])


def _api(host: Host) -> Any:
    """The daemon's low-level client, which has no type hints."""
    return host.client.api
