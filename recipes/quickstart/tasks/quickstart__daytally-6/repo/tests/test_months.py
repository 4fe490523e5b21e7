import unittest
from datetime import date

from daytally import (
    Span,
    add_months,
    month_span,
    monthly,
    quarter,
    week_label,
)


class MonthTest(unittest.TestCase):
    def test_month_span(self):
        february = Span(date(2024, 2, 1), date(2024, 2, 29))
        self.assertEqual(month_span(date(2024, 2, 10)), february)

    def test_add_months(self):
        self.assertEqual(add_months(date(2024, 3, 5), 2), date(2024, 5, 5))

    def test_add_months_over_new_year(self):
        day = date(2023, 11, 5)
        self.assertEqual(add_months(day, 1), date(2023, 12, 5))
        self.assertEqual(add_months(day, 2), date(2024, 1, 5))

    def test_add_negative_months(self):
        self.assertEqual(add_months(date(2024, 1, 5), -1), date(2023, 12, 5))

    def test_add_months_to_short_month(self):
        self.assertEqual(add_months(date(2023, 1, 31), 1), date(2023, 2, 28))


class MonthlyTest(unittest.TestCase):
    def test_includes_both_ends(self):
        days = monthly(date(2024, 1, 5), date(2024, 3, 5))
        self.assertEqual([day.month for day in days], [1, 2, 3])

    def test_end_before_next_date(self):
        days = monthly(date(2024, 1, 5), date(2024, 2, 4))
        self.assertEqual(days, [date(2024, 1, 5)])

    def test_end_before_start(self):
        self.assertEqual(monthly(date(2024, 1, 5), date(2024, 1, 4)), [])

    def test_day_is_kept_after_a_short_month(self):
        days = monthly(date(2024, 1, 31), date(2024, 5, 31))
        self.assertEqual([day.day for day in days], [31, 29, 31, 30, 31])


class LabelTest(unittest.TestCase):
    def test_quarter(self):
        quarters = [quarter(date(2024, m, 1)) for m in (1, 3, 4, 12)]
        self.assertEqual(quarters, [1, 1, 2, 4])

    def test_week_label(self):
        self.assertEqual(week_label(date(2024, 2, 14)), "2024-W07")
        self.assertEqual(week_label(date(2024, 12, 29)), "2024-W52")

    def test_week_label_before_new_year(self):
        self.assertEqual(week_label(date(2024, 12, 30)), "2025-W01")

    def test_week_label_after_new_year(self):
        self.assertEqual(week_label(date(2021, 1, 1)), "2020-W53")


if __name__ == "__main__":
    unittest.main()
