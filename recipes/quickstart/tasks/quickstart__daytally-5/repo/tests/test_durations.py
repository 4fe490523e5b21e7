import unittest
from datetime import timedelta

from daytally import parse, round_up, show


class ParseTest(unittest.TestCase):
    def test_one_unit(self):
        self.assertEqual(parse("90m"), timedelta(minutes=90))

    def test_several_units(self):
        self.assertEqual(parse("1h30m"), timedelta(hours=1, minutes=30))

    def test_spaces(self):
        self.assertEqual(parse(" 2 d 4h "), timedelta(days=2, hours=4))

    def test_weeks(self):
        self.assertEqual(parse("1w"), timedelta(days=7))

    def test_not_a_duration(self):
        with self.assertRaises(ValueError):
            parse("soon")
        with self.assertRaises(ValueError):
            parse("")


class ShowTest(unittest.TestCase):
    def test_units(self):
        self.assertEqual(show(timedelta(seconds=59)), "59s")
        self.assertEqual(show(timedelta(hours=1, minutes=30)), "1h30m")
        self.assertEqual(show(timedelta(days=9)), "1w2d")

    def test_zero(self):
        self.assertEqual(show(timedelta(0)), "0s")

    def test_rounds_to_the_second(self):
        self.assertEqual(show(timedelta(seconds=59.7)), "1m")

    def test_negative(self):
        self.assertEqual(show(timedelta(seconds=-45)), "-45s")
        self.assertEqual(show(timedelta(minutes=-90)), "-1h30m")


class RoundUpTest(unittest.TestCase):
    def test_rounds_up(self):
        step = timedelta(minutes=15)
        self.assertEqual(round_up(timedelta(minutes=1), step), step)
        self.assertEqual(round_up(timedelta(minutes=16), step), 2 * step)


if __name__ == "__main__":
    unittest.main()
