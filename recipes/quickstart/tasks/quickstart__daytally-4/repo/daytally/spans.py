"""Spans of days."""

from dataclasses import dataclass
from datetime import date, timedelta

DAY = timedelta(days=1)


@dataclass(frozen=True, order=True)
class Span:
    """The days from start to end, both included."""

    start: date
    end: date

    def __post_init__(self):
        if self.end < self.start:
            raise ValueError("a span cannot end before it starts")

    def __len__(self):
        return (self.end - self.start).days + 1

    def __iter__(self):
        for offset in range(len(self)):
            yield self.start + offset * DAY

    def __contains__(self, day):
        return self.start <= day <= self.end

    def overlaps(self, other):
        """Whether a day is in both spans."""
        return self.start <= other.end and other.start <= self.end


def merge(spans):
    """Sort spans, and join those that overlap or are adjacent."""
    merged = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end + DAY:
            last = merged.pop()
            span = Span(last.start, max(last.end, span.end))
        merged.append(span)
    return merged


def gaps(spans, within):
    """List the spans of days in within that none of spans covers."""
    free = []
    start = within.start
    for span in merge(spans):
        if span.start > within.end:
            break
        if start < span.start:
            free.append(Span(start, span.start - DAY))
        start = max(start, span.end + DAY)
    if start <= within.end:
        free.append(Span(start, within.end))
    return free
