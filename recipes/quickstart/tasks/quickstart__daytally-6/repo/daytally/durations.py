"""Durations such as 1h30m."""

import re
from datetime import timedelta

UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"(\d+)\s*([wdhms])\s*")
_TEXT = re.compile(rf"\s*(?:{_PART.pattern})+")


def parse(text):
    """Read a duration such as '1h30m' or '2d 4h'."""
    if not _TEXT.match(text):
        raise ValueError(f"not a duration: {text!r}")
    parts = _PART.findall(text)
    return timedelta(seconds=sum(int(n) * UNITS[u] for n, u in parts))


def show(delta):
    """Write a timedelta to the second, such as '1h30m' or '-45s'."""
    seconds = round(delta.total_seconds())
    text = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    for unit, size in UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def round_up(delta, step):
    """Round delta up to a multiple of step."""
    return -(-delta // step) * step
