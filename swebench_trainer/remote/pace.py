"""When the next request may go."""

from __future__ import annotations

_APART = 0.005
_RAMP = 0.3
"""Seconds within which all places are taken, however many there are."""
_LATE = 0.05


class Pace:
    """Spreads requests over time.

    Those that start together end together, and then all of them wait while each
    response is read and each next request is written. But on a busy machine a pause
    ends late, and if each request took one, places would stay empty for as long: so
    what is late catches up, by 50 ms at most. A request that follows none closely has
    nothing to wait for.

    Args:
        at_once: Most requests under way.
        now: Seconds by the clock that `wait` is told.
    """

    def __init__(self, at_once: int, now: float) -> None:
        self._apart = min(_APART, _RAMP / at_once)
        self._next = now

    def wait(self, now: float) -> float:
        """Seconds until the next request may go, which is counted as sent by then."""
        due = max(self._next, now - _LATE)
        self._next = due + self._apart
        return max(0.0, due - now)
