"""Containers that are started before they are needed.

Starting a container takes as long as a short test run, so it happens while other
candidates run. Until a worker takes it, a container belongs to an image, not to a
candidate.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from swebench_trainer.grading.docker.containers import Container

REMOVALS = 2
"""Number of concurrent removals; the daemon serializes them anyway."""


class WarmContainers:
    """The containers of one daemon.

    At most `2 * workers` containers exist at a time: in use, warm, or being removed.

    Args:
        start: Starts a container of an image.
        workers: Number of containers in use at a time.
    """

    def __init__(self, start: Callable[[str], Container], workers: int) -> None:
        self._start = start
        self._workers = workers
        self._room = threading.Semaphore(2 * workers)
        self._starts = ThreadPoolExecutor(workers, "start")
        self._removals = ThreadPoolExecutor(REMOVALS, "remove")
        self._lock = threading.Lock()
        self._warm: dict[str, deque[Future[Container]]] = defaultdict(deque)

    def take(self, image: str, life: float) -> Container:
        """Take an unused container that lives for at least `life` seconds."""
        while (future := self._pop(image)) is not None:
            if future.exception() is not None:
                continue  # starting one may succeed now
            container = future.result()
            if container.lives_for(life):
                return container
            self.discard(container)
        return self._begin(image)

    def keep(self, images: Sequence[str]) -> None:
        """Keep one warm container for each of the next images, and no others."""
        wanted = Counter(images[: self._workers])
        with self._lock:
            for image in self._warm.keys() - wanted.keys():
                for future in self._warm.pop(image):
                    self._discard_future(future)
            for image, count in wanted.items():
                warm = self._warm[image]
                while len(warm) > count:
                    self._discard_future(warm.pop())
                while len(warm) < count:
                    warm.append(self._starts.submit(self._begin, image))

    def discard(self, container: Container) -> None:
        """Remove a container in the background."""
        self._removals.submit(self._remove, container)

    def clear(self) -> None:
        """Remove all warm containers."""
        self.keep(())

    def close(self) -> None:
        """Remove all warm containers and wait for the removals."""
        self.clear()
        self._starts.shutdown()
        self._removals.shutdown()

    def _pop(self, image: str) -> Future[Container] | None:
        with self._lock:
            warm = self._warm.get(image)
            return warm.popleft() if warm else None

    def _begin(self, image: str) -> Container:
        self._room.acquire()
        try:
            return self._start(image)
        except BaseException:
            self._room.release()
            raise

    def _discard_future(self, future: Future[Container]) -> None:
        """Discard a container that may not have started yet."""
        if not future.cancel():
            future.add_done_callback(self._remove_started)

    def _remove_started(self, future: Future[Container]) -> None:
        if future.exception() is None:
            self.discard(future.result())

    def _remove(self, container: Container) -> None:
        try:
            container.remove()
        finally:
            self._room.release()
