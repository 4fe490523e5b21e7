"""Time limits that ignore pauses of this process.

A stopped trainer (SIGSTOP, a suspended machine) cannot see that a candidate has ended, and
its full pipes may hold the candidate up. If pauses counted, every candidate that was
running would be a timeout afterwards.
"""

from __future__ import annotations

import time

TICK = 1.0
"""How often, in seconds, users of a `RunningTime` must look at it."""

LONGEST_STEP = 5.0
"""A longer time between two looks is a pause of this process and counts as one tick."""


class RunningTime:
    """Seconds that this process has been running since the object was created."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._looked = time.monotonic()

    def seconds(self) -> float:
        """The time without pauses, if this is called every `TICK`."""
        now = time.monotonic()
        step, self._looked = now - self._looked, now
        self._seconds += step if step <= LONGEST_STEP else TICK
        return self._seconds
