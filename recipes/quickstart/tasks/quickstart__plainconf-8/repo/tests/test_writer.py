import unittest

from plainconf import dumps, loads, quote


class QuoteTest(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(quote("two words"), "two words")
        self.assertEqual(quote(r"C:\new"), r"C:\new")

    def test_empty(self):
        self.assertEqual(quote(""), '""')

    def test_outer_spaces(self):
        self.assertEqual(quote(" a"), '" a"')

    def test_comment_mark(self):
        self.assertEqual(quote("a # b"), '"a # b"')

    def test_quotes_in_value(self):
        self.assertEqual(quote('say "hi"'), r'"say \"hi\""')

    def test_quotes_and_backslash(self):
        sections = {"x": {"a": 'C:\\new "folder"'}}
        self.assertEqual(loads(dumps(sections)), sections)


class DumpsTest(unittest.TestCase):
    def test_sections(self):
        text = dumps({"": {"a": "1"}, "x": {"b": "2"}, "y": {}})
        self.assertEqual(text, "a = 1\n\n[x]\nb = 2\n\n[y]\n")

    def test_order_is_kept(self):
        text = dumps({"y": {"b": "1", "a": "2"}, "x": {}})
        self.assertEqual(text, "[y]\nb = 1\na = 2\n\n[x]\n")

    def test_nothing(self):
        self.assertEqual(dumps({"": {}}), "")

    def test_round_trip(self):
        sections = {"x": {"a": " b", "c": "d; e", "f": ""}}
        self.assertEqual(loads(dumps(sections)), sections)

    def test_top_section_comes_first(self):
        text = dumps({"y": {"b": "2"}, "x": {}, "": {"a": "1"}})
        self.assertEqual(text, "a = 1\n\n[y]\nb = 2\n\n[x]\n")


if __name__ == "__main__":
    unittest.main()
