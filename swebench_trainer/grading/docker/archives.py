"""Files of images, read through containers that are created but never started."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from swebench_trainer.contents.archive import CHUNK
from swebench_trainer.contents.errors import UnavailableError
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.docker import containers
from swebench_trainer.grading.docker.hosts import TRY_DOCKER, Host
from swebench_trainer.grading.docker.images import (
    ImageError,
    Images,
    RegistryUnreachableError,
)
from swebench_trainer.grading.docker.orphans import GraderClaim, remove_orphans


class DefaultDaemon:
    """The default Docker daemon and its images. Connects on first use.

    Attributes:
        problem: Why it is unreachable; empty if it responded, or was not asked yet.
    """

    def __init__(self) -> None:
        self._host = Host("", 0)
        self.problem = ""
        self._images: Images | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    @property
    def api(self) -> Any:
        """The SDK's `APIClient`, which has no type hints."""
        return self._host.client.api

    def images(self) -> Images | None:
        """Its images; `None` if it is unreachable. Removes containers of dead users."""
        with self._lock:
            if self._images is None and not self.problem:
                self.problem = self._host.connection_error()
                if not self.problem:
                    self._images = Images(self.api, {}, None, self._stopped)
                    with containers.ignore_docker_errors():
                        remove_orphans({self._host.daemon_id: self.api})
            return self._images

    @contextlib.contextmanager
    def unstarted_container(self, image_id: str) -> Iterator[str]:
        """Create a container without starting it, and remove it when the context ends.

        Yields:
            The id of the container.

        Raises:
            DockerException: The image does not exist.
            OSError: The daemon is unreachable.
        """
        api, owner = self.api, uuid.uuid4().hex
        claim = GraderClaim(owner)
        gone = False
        try:
            claim.add(self._host.daemon_id)
            container = api.create_container(
                image_id, ["true"], entrypoint="", labels={containers.LABEL: owner}
            )["Id"]
            try:
                yield container
            finally:
                api.remove_container(container, v=True, force=True)
            gone = True
        finally:
            claim.release(empty=gone)

    def stop(self) -> None:
        """Stop waiting for a registry."""
        self._stopped.set()

    def retry(self) -> None:
        """Forget failures, so that unavailable images are requested again."""
        self._stopped.clear()
        with self._lock:
            self.problem = ""
            if self._images is not None:
                self._images.retry()

    def close(self) -> None:
        """Stop waiting for a registry, and disconnect."""
        self.stop()
        if self._images is not None:
            self._images.close()
        self._host.close()


class DockerArchives:
    """Images of the default Docker daemon; see `contents.image.Archives`."""

    def __init__(self) -> None:
        self._daemon = DefaultDaemon()

    def image_id(self, image: str) -> str:
        """See `Archives`."""
        with _unavailable():
            try:
                return self._images().get(image).id
            except RegistryUnreachableError:
                self._daemon.stop()  # do not wait for the next image
                raise

    @contextlib.contextmanager
    def unstarted_container(
        self, image_id: str
    ) -> Iterator[Callable[[str], Iterator[bytes] | None]]:
        """See `Archives`."""
        self._images()

        def take(path: str) -> Iterator[bytes] | None:
            from docker.errors import NotFound

            with _unavailable():
                try:
                    chunks, _ = self._daemon.api.get_archive(container, path, CHUNK)
                except NotFound:
                    return None
                return _checked(chunks)

        with (
            _unavailable(),
            self._daemon.unstarted_container(image_id) as container,
        ):
            yield take

    def close(self) -> None:
        """See `Archives`."""
        self._daemon.close()

    def _images(self) -> Images:
        """The daemon's images.

        Raises:
            PrerequisiteError: The daemon is unreachable.
        """
        if (images := self._daemon.images()) is None:
            problem = self._daemon.problem
            raise PrerequisiteError(
                f"Docker is unreachable: {problem}", hint=TRY_DOCKER
            )
        return images


def _checked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    with _unavailable():
        yield from chunks


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """Turn errors of Docker into the reason why one instance is unavailable."""
    from docker.errors import DockerException

    try:
        with containers.translate_losses(image_may_go=True):
            yield
    except (DockerException, ImageError, containers.LostError) as error:
        message = str(getattr(error, "explanation", None) or error)
        raise UnavailableError(" ".join(message.split())) from error
