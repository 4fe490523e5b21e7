import unittest
from datetime import date

from daytally import Span, gaps, merge


def may(first, last):
    return Span(date(2024, 5, first), date(2024, 5, last))


class SpanTest(unittest.TestCase):
    def test_length(self):
        self.assertEqual(len(may(1, 1)), 1)
        self.assertEqual(len(may(1, 31)), 31)

    def test_days(self):
        days = [day.day for day in may(3, 5)]
        self.assertEqual(days, [3, 4, 5])

    def test_contains_both_ends(self):
        self.assertIn(date(2024, 5, 3), may(3, 5))
        self.assertIn(date(2024, 5, 5), may(3, 5))
        self.assertNotIn(date(2024, 5, 6), may(3, 5))

    def test_overlaps(self):
        self.assertTrue(may(1, 3).overlaps(may(3, 5)))
        self.assertFalse(may(1, 3).overlaps(may(4, 5)))

    def test_end_before_start(self):
        with self.assertRaises(ValueError):
            may(5, 3)


class MergeTest(unittest.TestCase):
    def test_overlapping(self):
        self.assertEqual(merge([may(1, 4), may(3, 6)]), [may(1, 6)])

    def test_adjacent(self):
        self.assertEqual(merge([may(1, 3), may(4, 6)]), [may(1, 6)])

    def test_apart(self):
        spans = [may(1, 3), may(5, 6)]
        self.assertEqual(merge(spans), spans)

    def test_unsorted(self):
        spans = [may(9, 9), may(1, 3), may(2, 4)]
        self.assertEqual(merge(spans), [may(1, 4), may(9, 9)])

    def test_span_inside_another(self):
        self.assertEqual(merge([may(1, 9), may(3, 4)]), [may(1, 9)])

    def test_same_start(self):
        self.assertEqual(merge([may(1, 2), may(1, 9)]), [may(1, 9)])


class GapsTest(unittest.TestCase):
    def test_nothing_planned(self):
        self.assertEqual(gaps([], may(1, 9)), [may(1, 9)])

    def test_around_a_span(self):
        free = gaps([may(4, 6)], may(1, 7))
        self.assertEqual(free, [may(1, 3), may(7, 7)])

    def test_spans_past_the_ends(self):
        free = gaps([may(1, 5), may(8, 12), may(20, 22)], may(3, 10))
        self.assertEqual(free, [may(6, 7)])

    def test_fully_planned(self):
        self.assertEqual(gaps([may(1, 9)], may(2, 9)), [])


if __name__ == "__main__":
    unittest.main()
