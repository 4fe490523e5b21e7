"""Months, quarters and weeks."""

from calendar import monthrange
from datetime import date

from .spans import Span


def month_span(day):
    """The month that day is in."""
    last = monthrange(day.year, day.month)[1]
    return Span(day.replace(day=1), day.replace(day=last))


def add_months(day, count):
    """The same day count months on; at most the last of that month."""
    year, month = divmod(day.year * 12 + day.month - 1 + count, 12)
    last = monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last))


def monthly(start, end):
    """List start and the same day of each later month, up to end."""
    days = []
    day = start
    while day <= end:
        days.append(day)
        day = add_months(start, len(days))
    return days


def quarter(day):
    """The quarter of the year, from 1 to 4."""
    return (day.month - 1) // 3 + 1


def week_label(day):
    """The ISO 8601 week, such as '2024-W07'."""
    return day.strftime("%G-W%V")
