import unittest
from datetime import date

from daytally import Span, add_workdays, count_workdays, is_workday

FRIDAY = date(2024, 5, 3)
SATURDAY = date(2024, 5, 4)
MONDAY = date(2024, 5, 6)
TUESDAY = date(2024, 5, 7)


class IsWorkdayTest(unittest.TestCase):
    def test_week(self):
        self.assertTrue(is_workday(FRIDAY))
        self.assertFalse(is_workday(SATURDAY))

    def test_holiday(self):
        self.assertFalse(is_workday(FRIDAY, [FRIDAY]))


class CountTest(unittest.TestCase):
    def test_weekend_does_not_count(self):
        self.assertEqual(count_workdays(Span(FRIDAY, MONDAY)), 2)

    def test_holiday(self):
        self.assertEqual(count_workdays(Span(FRIDAY, TUESDAY), [MONDAY]), 2)

    def test_holiday_outside(self):
        self.assertEqual(count_workdays(Span(FRIDAY, MONDAY), [TUESDAY]), 2)

    def test_holiday_listed_twice(self):
        holidays = [MONDAY, MONDAY]
        self.assertEqual(count_workdays(Span(FRIDAY, MONDAY), holidays), 1)


class AddTest(unittest.TestCase):
    def test_over_the_weekend(self):
        self.assertEqual(add_workdays(FRIDAY, 1), MONDAY)

    def test_back_over_the_weekend(self):
        self.assertEqual(add_workdays(MONDAY, -1), FRIDAY)

    def test_zero_stays(self):
        self.assertEqual(add_workdays(SATURDAY, 0), SATURDAY)

    def test_skips_holiday(self):
        self.assertEqual(add_workdays(FRIDAY, 1, [MONDAY]), TUESDAY)

    def test_weeks(self):
        self.assertEqual(add_workdays(MONDAY, 10), date(2024, 5, 20))


if __name__ == "__main__":
    unittest.main()
