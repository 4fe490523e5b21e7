import unittest

from foldline import fill, indent, shorten, wrap


class WrapTest(unittest.TestCase):
    def test_short_text_is_one_line(self):
        self.assertEqual(wrap("one two", 20), ["one two"])

    def test_breaks_between_words(self):
        self.assertEqual(wrap("one two three", 8), ["one two", "three"])

    def test_empty_text_has_no_lines(self):
        self.assertEqual(wrap(" \n "), [])

    def test_white_space_is_collapsed(self):
        self.assertEqual(wrap("one\n  two", 20), ["one two"])

    def test_hanging_indent(self):
        lines = wrap("one two three four", 10, "  ")
        self.assertEqual(lines, ["one two", "  three", "  four"])

    def test_long_word_is_cut(self):
        self.assertEqual(wrap("abcdefgh", 3), ["abc", "def", "gh"])

    def test_no_room(self):
        with self.assertRaises(ValueError):
            wrap("one", 2, "  ")

    def test_line_of_exactly_width(self):
        self.assertEqual(wrap("one two three", 7), ["one two", "three"])

    def test_text_of_exactly_width(self):
        self.assertEqual(wrap("one two", 7), ["one two"])


class FillTest(unittest.TestCase):
    def test_keeps_paragraphs(self):
        text = "one two\nthree\n\n\nfour\n"
        self.assertEqual(fill(text, 20), "one two three\n\nfour")


class IndentTest(unittest.TestCase):
    def test_every_line(self):
        self.assertEqual(indent("a\nb\n", "> "), "> a\n> b\n")

    def test_default_prefix(self):
        self.assertEqual(indent("a"), "    a")

    def test_empty_text(self):
        self.assertEqual(indent(""), "")

    def test_blank_lines_get_no_prefix(self):
        self.assertEqual(indent("a\n\nb\n", "  "), "  a\n\n  b\n")

    def test_line_of_spaces_is_kept(self):
        self.assertEqual(indent("a\n \nb", "> "), "> a\n \n> b")


class ShortenTest(unittest.TestCase):
    def test_text_that_fits(self):
        self.assertEqual(shorten("one  two", 7), "one two")

    def test_cuts_after_a_word(self):
        self.assertEqual(shorten("one two three", 11), "one two...")

    def test_cut_may_fall_on_a_space(self):
        self.assertEqual(shorten("one two three", 10), "one two...")

    def test_own_mark(self):
        self.assertEqual(shorten("one two three", 6, "~"), "one~")

    def test_no_room(self):
        with self.assertRaises(ValueError):
            shorten("one two", 2)

    def test_long_first_word_is_cut(self):
        self.assertEqual(shorten("abcdefghij", 6), "abc...")

    def test_long_first_word_before_others(self):
        self.assertEqual(shorten("abcdefghij kl", 8), "abcde...")


if __name__ == "__main__":
    unittest.main()
