"""Spans of days, working days, months and durations."""

from .durations import parse, round_up, show
from .months import add_months, month_span, monthly, quarter, week_label
from .spans import Span, gaps, merge
from .workdays import add_workdays, count_workdays, is_workday

__all__ = [
    "Span",
    "add_months",
    "add_workdays",
    "count_workdays",
    "gaps",
    "is_workday",
    "merge",
    "month_span",
    "monthly",
    "parse",
    "quarter",
    "round_up",
    "show",
    "week_label",
]
__version__ = "1.0"
