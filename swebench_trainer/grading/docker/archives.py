"""Read files of images through containers that are created but never started."""

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
from swebench_trainer.grading.docker.images import UNREACHABLE, ImageError, Images
from swebench_trainer.grading.docker.orphans import GraderClaim, remove_orphans

_CHUNK = 1 << 20


@contextlib.contextmanager
def unstarted_container(host: Host, image_id: str) -> Iterator[str]:
    """A container that is never started, for as long as its files are needed.

    Yields:
        Its id.

    Raises:
        DockerException: There is no such image.
        OSError: The daemon does not answer.
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
    """The images of the daemon of this machine; see `contents.image.Archives`."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._host = Host("", 0)
        self._images: Images | None = None
        self._complaint = ""

    def image_id(self, image: str) -> str:
        """See `Archives`."""
        with _reasons():
            try:
                return self._connected().get(image).id
            except ImageError as error:
                if UNREACHABLE.search(str(error)):
                    self._stopped.set()  # no patience with the next one
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

            with _reasons():
                try:
                    return _checked(api.get_archive(container, path, _CHUNK)[0])
                except APIError as error:
                    if error.status_code == GONE:
                        return None
                    raise

        with _reasons(), unstarted_container(self._host, image_id) as container:
            yield take

    def close(self) -> None:
        """See `Archives`."""
        self._stopped.set()
        if self._images is not None:
            self._images.close()
        self._host.close()

    def _connected(self) -> Images:
        """The daemon's images; it is asked for once.

        Raises:
            PrerequisiteError: It does not answer.
        """
        if self._images is None and not self._complaint:
            self._complaint = self._host.connection_error()
            if not self._complaint:
                api = self._host.client.api
                self._images = Images(api, {}, None, self._stopped)
                with ignore_docker_errors():
                    remove_orphans({self._host.daemon_id: api})
        if self._images is None:
            raise PrerequisiteError(
                f"Docker does not answer: {self._complaint}", hint=TRY_DOCKER
            )
        return self._images


def _checked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    with _reasons():
        yield from chunks


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turns what Docker cannot do into the reason of one instance."""
    from docker.errors import DockerException

    try:
        with translate_losses(image_may_go=True):
            yield
    except (DockerException, ImageError, LostError) as error:
        said = str(getattr(error, "explanation", None) or error)
        raise UnavailableError(" ".join(said.split())) from error
