"""Working days: Monday to Friday, except for holidays."""

from .spans import DAY


def is_workday(day, holidays=()):
    """Whether day is a weekday and not among holidays."""
    return day.weekday() < 5 and day not in holidays


def count_workdays(span, holidays=()):
    """Count the working days of span."""
    weekdays = set(filter(is_workday, span))
    return len(weekdays - set(holidays))


def add_workdays(day, count, holidays=()):
    """Go count working days forward, or back where count is negative."""
    holidays = set(holidays)
    step = DAY if count > 0 else -DAY
    for _ in range(abs(count)):
        day += step
        while not is_workday(day, holidays):
            day += step
    return day
