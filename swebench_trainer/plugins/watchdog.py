"""Says whom a run waits for, when a plugin does not return.

A call cannot be ended safely from outside, so none is. The run waits, says for whom and
where that code stands, and stops at Ctrl-C like at any other time.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

HOOK_PATIENCE = 30.0
"""Seconds that a hook may take before the run says that it waits."""
CALL_PATIENCE = 300.0
"""Seconds that a backend, a grader and so on may take from one result to the next."""


@dataclass(eq=False)
class Watched:
    """A call that has not returned.

    Attributes:
        who: Plugin and function, for people.
        patience: Seconds until the run says that it waits; doubled each time it does.
        thread: The thread that it keeps waiting.
    """

    who: str
    patience: float
    thread: int = field(default_factory=threading.get_ident)
    since: float = field(default_factory=time.monotonic)
    due: float = 0.0

    def __post_init__(self) -> None:
        self.due = self.since + self.patience

    def alive(self) -> None:
        """Notes a sign of life: the waiting begins anew."""
        self.since = time.monotonic()
        self.due = self.since + self.patience


class Watchdog:
    """Watches calls from a thread of its own, which lives while there are some.

    Attributes:
        tell: Takes a line for people; the log gets it in any case.
        hook_patience: See `HOOK_PATIENCE`.
        call_patience: See `CALL_PATIENCE`.
    """

    def __init__(
        self,
        *,
        hook_patience: float = HOOK_PATIENCE,
        call_patience: float = CALL_PATIENCE,
    ) -> None:
        self.tell: Callable[[str], None] = lambda text: None
        self.hook_patience = hook_patience
        self.call_patience = call_patience
        self._calls: list[Watched] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, who: str, patience: float) -> Iterator[Watched]:
        """Watches the body of the `with` statement."""
        call = Watched(who, patience)
        with self._lock:
            self._calls.append(call)
            if self._thread is None or not self._thread.is_alive():
                tick = min(self.hook_patience, self.call_patience, 4.0) / 4
                self._thread = threading.Thread(
                    target=self._watch, args=(tick,), name="watchdog", daemon=True
                )
                self._thread.start()
        try:
            yield call
        finally:
            with self._lock:
                self._calls.remove(call)

    def _watch(self, tick: float) -> None:
        idle = 0
        while idle < 4:  # calls follow each other closely: a thread each is too many
            time.sleep(tick)
            now = time.monotonic()
            with self._lock:
                late = [call for call in self._calls if call.due <= now]
                idle = 0 if self._calls else idle + 1
                if idle == 4:
                    self._thread = None
            for call in late:
                self._report(call, now)

    def _report(self, call: Watched, now: float) -> None:
        call.patience *= 2
        call.due = now + call.patience
        text = (
            f"Still waiting for {call.who}, for {now - call.since:.0f} s. "
            "Ctrl-C stops the run, and what it has done is kept."
        )
        frame = sys._current_frames().get(call.thread)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        self.tell(text)
        log.warning("%s It stands at\n%s", text, stack)
