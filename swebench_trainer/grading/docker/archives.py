"""Files of images, read through containers that are created but never started."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from swebench_trainer.contents.errors import UnavailableError
from swebench_trainer.errors import PrerequisiteError
from swebench_trainer.grading.docker.containers import (
    GONE,
    LABEL,
    LostError,
    ignore_docker_errors,
    translate_losses,
)
from swebench_trainer.grading.docker.hosts import TRY_DOCKER, Host
from swebench_trainer.grading.docker.images import (
    ImageError,
    Images,
    RegistryUnreachableError,
)
from swebench_trainer.grading.docker.orphans import GraderClaim, remove_orphans

_CHUNK = 1 << 20


@contextlib.contextmanager
def unstarted_container(host: Host, image_id: str) -> Iterator[str]:
    """Create a container without starting it, and remove it when the context ends.

    Yields:
        The id of the container.

    Raises:
        DockerException: The image does not exist.
        OSError: The daemon is unreachable.
    """
    api: Any = host.client.api
    owner = uuid.uuid4().hex
    claim = GraderClaim(owner)
    gone = False
    try:
        claim.add(host.daemon_id)
        container = api.create_container(
            image_id, ["true"], entrypoint="", labels={LABEL: owner}
        )["Id"]
        try:
            yield container
        finally:
            api.remove_container(container, v=True, force=True)
        gone = True
    finally:
        claim.release(empty=gone)


class DockerArchives:
    """Images of the default Docker daemon; see `contents.image.Archives`."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._host = Host("", 0)
        self._images: Images | None = None
        self._problem = ""

    def image_id(self, image: str) -> str:
        """See `Archives`."""
        with _unavailable():
            try:
                return self._connected().get(image).id
            except RegistryUnreachableError:
                self._stopped.set()  # do not wait for the next image
                raise

    @contextlib.contextmanager
    def unstarted_container(
        self, image_id: str
    ) -> Iterator[Callable[[str], Iterator[bytes] | None]]:
        """See `Archives`."""
        self._connected()
        api: Any = self._host.client.api

        def take(path: str) -> Iterator[bytes] | None:
            from docker.errors import APIError

            with _unavailable():
                try:
                    return _checked(api.get_archive(container, path, _CHUNK)[0])
                except APIError as error:
                    if error.status_code == GONE:
                        return None
                    raise

        with _unavailable(), unstarted_container(self._host, image_id) as container:
            yield take

    def close(self) -> None:
        """See `Archives`."""
        self._stopped.set()
        if self._images is not None:
            self._images.close()
        self._host.close()

    def _connected(self) -> Images:
        """The daemon's images. Connects on the first call.

        Raises:
            PrerequisiteError: The daemon is unreachable.
        """
        if self._images is None and not self._problem:
            self._problem = self._host.connection_error()
            if not self._problem:
                api = self._host.client.api
                self._images = Images(api, {}, None, self._stopped)
                with ignore_docker_errors():
                    remove_orphans({self._host.daemon_id: api})
        if self._images is None:
            raise PrerequisiteError(
                f"Docker is unreachable: {self._problem}", hint=TRY_DOCKER
            )
        return self._images


def _checked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    with _unavailable():
        yield from chunks


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """Turn errors of Docker into the reason why one instance is unavailable."""
    from docker.errors import DockerException

    try:
        with translate_losses(image_may_go=True):
            yield
    except (DockerException, ImageError, LostError) as error:
        message = str(getattr(error, "explanation", None) or error)
        raise UnavailableError(" ".join(message.split())) from error
