"""Images of one daemon: found, pulled, or built once each, and removed to save space.

Registries limit the rate of pulls. So each image is pulled by one thread while others
wait for it, and pulls are retried after errors that may pass.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from swebench_trainer.grading.docker.builds import Builder, BuildError, build_label
from swebench_trainer.grading.docker.containers import translate_losses

PULLS = 3
"""Number of concurrent pulls, so that one slow registry does not block others."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two attempts; each pause is twice the previous one."""

BUSY_SECONDS = 600.0
"""How long to retry a registry that is overloaded or limits our rate."""

UNREACHABLE_SECONDS = 5.0
"""How long to retry a registry that is unreachable."""

REFUSED = re.compile(
    r"not found|unknown|denied|unauthorized|authentication|invalid reference", re.I
)
UNREACHABLE = re.compile(r"no such host|refused|unreachable|server misbehaving", re.I)
LIMITED = re.compile(r"toomanyrequests|too many requests|rate limit", re.I)
OTHER_PLATFORM = re.compile(r"no matching manifest", re.I)
AMD64 = "linux/amd64"
"""Platform of SWE-bench images; other machines emulate it."""


class ImageError(Exception):
    """An image is unavailable; the message explains why."""


class RegistryUnreachableError(ImageError):
    """The registry of an image is unreachable."""


class UnbuildableError(ImageError):
    """The build of an image failed."""


@dataclass(frozen=True)
class Image:
    """An image on the daemon.

    Attributes:
        id: Digest of its content; a tag such as `:latest` may move.
        platform: Such as `linux/amd64`.
    """

    id: str
    platform: str


class Images:
    """The images of one daemon.

    Args:
        api: The SDK's `APIClient`.
        needed: Number of unfinished jobs by image name. Only these images may be
            removed.
        limit_gb: Disk space of the daemon's images above which some are removed.
        stopped: Ends waits for a registry.
        builder: Builds images that no registry has.
    """

    def __init__(
        self,
        api: Any,
        needed: Mapping[str, int],
        limit_gb: float | None,
        stopped: threading.Event,
        builder: Builder | None = None,
    ) -> None:
        self._api = api
        self._builder = builder
        self._needed = needed
        self._limit_gb = limit_gb
        self._stopped = stopped
        self._pulls = ThreadPoolExecutor(PULLS, "pull")
        self._lock = threading.Lock()
        self._found: dict[str, Future[Image]] = {}
        self._used_at: dict[str, float] = {}
        self._room = threading.Lock()

    def find(self, name: str) -> Future[Image]:
        """Find an image, or pull or build it if it is missing, in the background."""
        with self._lock:
            self._used_at[name] = time.monotonic()
            if name not in self._found:
                self._found[name] = self._pulls.submit(self._find, name)
            return self._found[name]

    def get(self, name: str) -> Image:
        """Wait for an image.

        Raises:
            ImageError: It is unavailable. It is not requested again before `retry`.
            LostError: The daemon is gone.
        """
        return self.find(name).result()

    def retry(self) -> None:
        """Forget failures, so that unavailable images are requested again."""
        with self._lock:
            for name, found in list(self._found.items()):
                if found.done() and (found.cancelled() or found.exception()):
                    del self._found[name]

    def forget(self, name: str) -> None:
        """Forget an image that was removed, so that it is looked up again."""
        with self._lock:
            self._found.pop(name, None)

    def close(self) -> None:
        """Stop waiting for images."""
        self._pulls.shutdown(cancel_futures=True)

    def _find(self, name: str) -> Image:
        from docker.errors import ImageNotFound

        with translate_losses(image_may_go=True):
            facts: Mapping[str, Any] | None
            try:
                facts = self._api.inspect_image(name)
            except ImageNotFound:
                facts = None
            if self._obtain(name, facts):
                facts = self._api.inspect_image(name)
                self._make_room()
        assert facts is not None
        return Image(facts["Id"], f"{facts['Os']}/{facts['Architecture']}")

    def _obtain(self, name: str, facts: Mapping[str, Any] | None) -> bool:
        """Pull or build an image if that is needed; returns whether it was.

        Raises:
            ImageError: It can neither be pulled nor built.
        """
        try:
            if self._builder is not None and self._builder.should_build(name, facts):
                self._builder.build(name)
                return True
            if facts is not None:
                return False
            self._pull_or_build(name)
        except BuildError as error:
            raise UnbuildableError(str(error)) from error
        return True

    def _pull_or_build(self, name: str) -> None:
        try:
            self._pull(name)
        except ImageError:
            if self._builder is None or not self._builder.can_build(name):
                raise
            self._builder.build(name)

    def _pull(self, name: str) -> None:
        """Pull an image, and retry while the error may pass.

        Raises:
            ImageError: The image is unavailable.
        """
        begin = time.monotonic()
        pause, platform = FIRST_PAUSE, None
        while problem := self._pull_once(name, platform):
            if OTHER_PLATFORM.search(problem) and platform is None:
                platform = AMD64
                continue
            spent = time.monotonic() - begin
            if spent + pause > retry_seconds(problem) or self._stopped.wait(pause):
                kind = ImageError
                if UNREACHABLE.search(problem):
                    kind = RegistryUnreachableError
                raise kind(f"no image {name} after {spent:.0f} s: {problem}")
            pause = min(2 * pause, LONGEST_PAUSE)

    def _pull_once(self, name: str, platform: str | None) -> str:
        """Pull an image once; returns the error, or nothing."""
        from docker.errors import DockerException
        from requests.exceptions import ReadTimeout

        # Without a tag, all of them would be pulled.
        tag = "latest" if name == repository(name) else None
        try:
            events = self._api.pull(
                name, tag=tag, platform=platform, stream=True, decode=True
            )
            for event in events:
                if "error" in event or self._stopped.is_set():
                    return str(event.get("error", "grading was stopped"))
        except DockerException as error:
            return str(getattr(error, "explanation", None) or error)
        except ReadTimeout as error:
            return str(error)
        return ""

    def _make_room(self) -> None:
        """Remove images that no job needs while the images exceed the limit.

        The least recently used are removed first.
        """
        if self._limit_gb is None:
            return
        with self._lock:
            idle = [name for name, jobs in list(self._needed.items()) if not jobs]
            idle.sort(key=lambda name: self._used_at.get(name, 0.0))
        with self._room:
            for name in idle:
                if self._api.df()["LayersSize"] <= self._limit_gb * 1e9:
                    return
                self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove an image if it can be pulled or built again."""
        from docker.errors import APIError, ImageNotFound

        try:
            can_build = self._builder is not None and self._builder.can_build(name)
            if not is_replaceable(name, self._api.inspect_image(name), can_build):
                return
            self._api.remove_image(name)
        except ImageNotFound:
            pass
        except APIError:  # in use by a container that is not ours
            return
        self.forget(name)


def is_replaceable(name: str, facts: Mapping[str, Any], can_build: bool) -> bool:
    """Whether an image was pulled by this name, or was built by us and can be again.

    Args:
        name: The image.
        facts: The daemon's description of it.
        can_build: Whether its Dockerfile is known and builds are allowed.
    """
    # A locally built image may share its content with one pulled by another name.
    digests = facts.get("RepoDigests") or ()
    pulled = any(digest.startswith(f"{repository(name)}@") for digest in digests)
    return pulled or (can_build and build_label(facts) is not None)


def repository(name: str) -> str:
    """The name of an image without tag and digest; a port is not a tag."""
    name = name.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


def retry_seconds(problem: str) -> float:
    """How long to retry a pull that failed with this error of the daemon."""
    if LIMITED.search(problem):
        return BUSY_SECONDS
    if REFUSED.search(problem):
        return 0.0
    return UNREACHABLE_SECONDS if UNREACHABLE.search(problem) else BUSY_SECONDS
