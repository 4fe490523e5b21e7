import unittest

from foldline import join, ordinal, plural, slug, snake


class NameTest(unittest.TestCase):
    def test_slug(self):
        self.assertEqual(slug("Hello, World!"), "hello-world")

    def test_slug_separator(self):
        self.assertEqual(slug(" Python 3.9 ", "_"), "python_3_9")

    def test_snake(self):
        self.assertEqual(snake("lineCount"), "line_count")

    def test_snake_acronym(self):
        self.assertEqual(snake("HTTPServerError"), "http_server_error")


class JoinTest(unittest.TestCase):
    def test_none(self):
        self.assertEqual(join([]), "")

    def test_one(self):
        self.assertEqual(join(["a"]), "a")

    def test_two(self):
        self.assertEqual(join(["a", "b"]), "a and b")

    def test_three(self):
        self.assertEqual(join([1, 2, 3], "or"), "1, 2 or 3")


class OrdinalTest(unittest.TestCase):
    def test_small(self):
        names = [ordinal(number) for number in (1, 2, 3, 4)]
        self.assertEqual(names, ["1st", "2nd", "3rd", "4th"])

    def test_teens(self):
        names = [ordinal(number) for number in (11, 12, 13)]
        self.assertEqual(names, ["11th", "12th", "13th"])

    def test_tens(self):
        self.assertEqual(ordinal(20), "20th")
        self.assertEqual(ordinal(42), "42nd")

    def test_teens_of_a_hundred(self):
        names = [ordinal(number) for number in (111, 212, 1013)]
        self.assertEqual(names, ["111th", "212th", "1013th"])

    def test_hundred_and_one(self):
        self.assertEqual(ordinal(101), "101st")


class PluralTest(unittest.TestCase):
    def test_one(self):
        self.assertEqual(plural(1, "file"), "1 file")

    def test_none_and_two(self):
        self.assertEqual(plural(0, "file"), "0 files")
        self.assertEqual(plural(2, "file"), "2 files")

    def test_sibilant(self):
        self.assertEqual(plural(2, "box"), "2 boxes")
        self.assertEqual(plural(2, "match"), "2 matches")

    def test_consonant_and_y(self):
        self.assertEqual(plural(2, "entry"), "2 entries")

    def test_irregular(self):
        self.assertEqual(plural(3, "child", "children"), "3 children")

    def test_vowel_and_y(self):
        self.assertEqual(plural(2, "key"), "2 keys")
        self.assertEqual(plural(0, "day"), "0 days")


if __name__ == "__main__":
    unittest.main()
