"""Containers that are started before anybody asks for them.

A container belongs to an image, not to a candidate, until a worker takes it; so a
start, which costs as much as a short test run, happens while others are tested.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from swebench_trainer.grading.docker.containers import Container

REMOVALS = 2
"""Removals at once; the daemon does them one after another anyway."""


class WarmContainers:
    """The containers of one daemon.

    Args:
        start: Starts a container of an image.
        workers: How many are used at once; as many more may be ready, and no more
            than that exist at a time, those that are being removed included.
    """

    def __init__(self, start: Callable[[str], Container], workers: int) -> None:
        self._start = start
        self._workers = workers
        self._room = threading.Semaphore(2 * workers)
        self._starts = ThreadPoolExecutor(workers, "start")
        self._removals = ThreadPoolExecutor(REMOVALS, "remove")
        self._lock = threading.Lock()
        self._ready: dict[str, deque[Future[Container]]] = defaultdict(deque)

    def take(self, image: str, life: float) -> Container:
        """A container that nobody has used, with so many seconds to live."""
        while (future := self._pop(image)) is not None:
            if future.exception() is not None:
                continue  # what was wrong then may be right now
            container = future.result()
            if container.lives_for(life):
                return container
            self.give_back(container)
        return self._begin(image)

    def want(self, images: Sequence[str]) -> None:
        """Keeps a container ready for each of the next images, and no others."""
        wanted = Counter(images[: self._workers])
        with self._lock:
            for image in self._ready.keys() - wanted.keys():
                for future in self._ready.pop(image):
                    self._discard(future)
            for image, count in wanted.items():
                ready = self._ready[image]
                while len(ready) > count:
                    self._discard(ready.pop())
                while len(ready) < count:
                    ready.append(self._starts.submit(self._begin, image))

    def give_back(self, container: Container) -> None:
        """Removes a container, in the background."""
        self._removals.submit(self._remove, container)

    def clear(self) -> None:
        """Removes what is ready."""
        self.want(())

    def close(self) -> None:
        """Removes what is ready and waits for the removals."""
        self.clear()
        self._starts.shutdown()
        self._removals.shutdown()

    def _pop(self, image: str) -> Future[Container] | None:
        with self._lock:
            ready = self._ready.get(image)
            return ready.popleft() if ready else None

    def _begin(self, image: str) -> Container:
        self._room.acquire()
        try:
            return self._start(image)
        except BaseException:
            self._room.release()
            raise

    def _discard(self, future: Future[Container]) -> None:
        """Removes a container that may not have started yet."""
        if not future.cancel():
            future.add_done_callback(self._remove_started)

    def _remove_started(self, future: Future[Container]) -> None:
        if future.exception() is None:
            self.give_back(future.result())

    def _remove(self, container: Container) -> None:
        try:
            container.remove()
        finally:
            self._room.release()
