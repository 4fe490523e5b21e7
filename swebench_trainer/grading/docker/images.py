"""The images of one daemon: found or pulled once each, and removed when disk is short.

Registries count pulls and turn away those who pull too often. So an image is pulled
by one thread, the others wait for it, and a refusal is answered with patience where
patience helps.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from swebench_trainer.grading.docker.containers import translate_losses

PULLS = 3
"""Pulls at once: one that waits for a registry must not hold up the others."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two tries; each pause is twice the one before."""

BUSY_SECONDS = 600.0
"""How long a registry is asked again that is overloaded or counts our pulls."""

UNREACHABLE_SECONDS = 5.0
"""How long one is asked again that cannot be reached at all."""

REFUSED = re.compile(
    r"not found|unknown|denied|unauthorized|authentication|invalid reference", re.I
)
UNREACHABLE = re.compile(r"no such host|refused|unreachable|server misbehaving", re.I)
LIMITED = re.compile(r"toomanyrequests|too many requests|rate limit", re.I)
OTHER_PLATFORM = re.compile(r"no matching manifest", re.I)
AMD64 = "linux/amd64"
"""What the images of SWE-bench are made for; elsewhere it is emulated."""


class ImageError(Exception):
    """An image cannot be had; the message says why."""


@dataclass(frozen=True)
class Image:
    """What a name stands for on this daemon.

    Attributes:
        id: Digest of its content; `:latest` may be another one tomorrow.
        platform: Such as `linux/amd64`.
    """

    id: str
    platform: str


class Images:
    """The images of one daemon.

    Args:
        api: The SDK's `APIClient`.
        needed: Name → jobs that are not done; the names are all that may be removed.
        limit_gb: Disk that the daemon's images may take before some are removed.
        stopped: Ends the waiting for a registry.
    """

    def __init__(
        self,
        api: Any,
        needed: Mapping[str, int],
        limit_gb: float | None,
        stopped: threading.Event,
    ) -> None:
        self._api = api
        self._needed = needed
        self._limit_gb = limit_gb
        self._stopped = stopped
        self._pulls = ThreadPoolExecutor(PULLS, "pull")
        self._lock = threading.Lock()
        self._found: dict[str, Future[Image]] = {}
        self._used_at: dict[str, float] = {}
        self._room = threading.Lock()

    def find(self, name: str) -> Future[Image]:
        """Looks for an image, and pulls it if need be, in the background."""
        with self._lock:
            self._used_at[name] = time.monotonic()
            if name not in self._found:
                self._found[name] = self._pulls.submit(self._find, name)
            return self._found[name]

    def get(self, name: str) -> Image:
        """Waits for an image.

        Raises:
            ImageError: It cannot be had. It is not asked for again before `retry`.
            LostError: The daemon is gone.
        """
        return self.find(name).result()

    def retry(self) -> None:
        """Forgets what could not be had, so that it is asked for again."""
        with self._lock:
            for name, found in list(self._found.items()):
                if found.done() and (found.cancelled() or found.exception()):
                    del self._found[name]

    def forget(self, name: str) -> None:
        """Looks for an image again when it is needed; somebody has removed it."""
        with self._lock:
            self._found.pop(name, None)

    def close(self) -> None:
        """Ends the waiting for images."""
        self._pulls.shutdown(cancel_futures=True)

    def _find(self, name: str) -> Image:
        from docker.errors import ImageNotFound

        with translate_losses(image_may_go=True):
            try:
                facts = self._api.inspect_image(name)
            except ImageNotFound:
                self._pull(name)
                facts = self._api.inspect_image(name)
                self._make_room()
        return Image(facts["Id"], f"{facts['Os']}/{facts['Architecture']}")

    def _pull(self, name: str) -> None:
        """Pulls an image, as long as there is hope.

        Raises:
            ImageError: There is none.
        """
        begin = time.monotonic()
        pause, platform = FIRST_PAUSE, None
        while problem := self._pull_once(name, platform):
            if OTHER_PLATFORM.search(problem) and platform is None:
                platform = AMD64
                continue
            spent = time.monotonic() - begin
            if spent + pause > patience(problem) or self._stopped.wait(pause):
                raise ImageError(f"no image {name} after {spent:.0f} s: {problem}")
            pause = min(2 * pause, LONGEST_PAUSE)

    def _pull_once(self, name: str, platform: str | None) -> str:
        """Pulls an image; returns what went wrong, or nothing."""
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
        """Removes images that nobody needs, while they take more than they may."""
        if self._limit_gb is None:
            return
        with self._room:
            for name in self._idle():
                if self._api.df()["LayersSize"] <= self._limit_gb * 1e9:
                    return
                self._remove(name)

    def _idle(self) -> list[str]:
        """Images of graded instances without a job, the longest unused first."""
        with self._lock:
            names = [name for name, jobs in list(self._needed.items()) if not jobs]
            return sorted(names, key=lambda name: self._used_at.get(name, 0.0))

    def _remove(self, name: str) -> None:
        """Removes an image that can be pulled again."""
        from docker.errors import APIError, ImageNotFound

        try:
            digests = self._api.inspect_image(name)["RepoDigests"] or ()
            # The content of a name that was made here may have been pulled as another.
            if not any(digest.startswith(f"{repository(name)}@") for digest in digests):
                return
            self._api.remove_image(name)
        except ImageNotFound:
            pass
        except APIError:  # a container of somebody else has it
            return
        self.forget(name)


def repository(name: str) -> str:
    """An image's name without tag and digest; a port is no tag."""
    name = name.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


def patience(problem: str) -> float:
    """Seconds for which a pull that ended so is worth another try."""
    if LIMITED.search(problem):
        return BUSY_SECONDS
    if REFUSED.search(problem):
        return 0.0
    return UNREACHABLE_SECONDS if UNREACHABLE.search(problem) else BUSY_SECONDS
