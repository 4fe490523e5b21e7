import unittest

from plainconf import ParseError, loads


class SectionTest(unittest.TestCase):
    def test_top_section(self):
        self.assertEqual(loads("a = 1\nb=2"), {"": {"a": "1", "b": "2"}})

    def test_sections(self):
        text = "a = 1\n\n[ x ]\nb = 2\n[y]\n"
        sections = {"": {"a": "1"}, "x": {"b": "2"}, "y": {}}
        self.assertEqual(loads(text), sections)

    def test_last_value_counts(self):
        self.assertEqual(loads("a = 1\na = 2"), {"": {"a": "2"}})

    def test_key_is_lower_case(self):
        self.assertEqual(loads("Host = A"), {"": {"host": "A"}})

    def test_empty(self):
        self.assertEqual(loads(""), {})

    def test_section_may_be_continued(self):
        text = "[x]\na = 1\n[y]\n[x]\nb = 2\n"
        sections = {"x": {"a": "1", "b": "2"}, "y": {}}
        self.assertEqual(loads(text), sections)


class ValueTest(unittest.TestCase):
    def value(self, text):
        return loads("key = " + text)[""]["key"]

    def test_empty(self):
        self.assertEqual(self.value(""), "")

    def test_equals_sign(self):
        self.assertEqual(self.value("a=b"), "a=b")

    def test_quotes_keep_spaces(self):
        self.assertEqual(self.value('"  a "'), "  a ")

    def test_escapes(self):
        self.assertEqual(self.value(r'"a\n\"b\" \\n"'), 'a\n"b" \\n')

    def test_backslash_without_quotes(self):
        self.assertEqual(self.value(r"C:\new"), r"C:\new")

    def test_comment_after_value(self):
        self.assertEqual(self.value("a b  # note"), "a b")
        self.assertEqual(self.value("a ; note"), "a")

    def test_comment_after_quotes(self):
        self.assertEqual(self.value('"a # b" # note'), "a # b")


class LineTest(unittest.TestCase):
    def test_comment_lines(self):
        self.assertEqual(loads("# a\n  ; b = 1\nc = 2"), {"": {"c": "2"}})

    def test_carriage_returns(self):
        self.assertEqual(loads("[x]\r\na = 1\r\n"), {"x": {"a": "1"}})

    def test_missing_bracket(self):
        with self.assertRaises(ParseError):
            loads("[x")

    def test_missing_equals_sign(self):
        with self.assertRaises(ParseError):
            loads("a")

    def test_missing_key(self):
        with self.assertRaises(ParseError):
            loads("= a")


if __name__ == "__main__":
    unittest.main()
