import unittest

from foldline import table


class TableTest(unittest.TestCase):
    def test_columns_line_up(self):
        text = table([["a", "bb"], ["ccc", "d"]])
        self.assertEqual(text, "a    bb\nccc  d")

    def test_header(self):
        text = table([["oak", 12]], header=["tree", "age"])
        self.assertEqual(text, "tree  age\n----  ---\noak   12")

    def test_align(self):
        text = table([["a", 1, "x"], ["b", 10, "xyz"]], align="lrc")
        self.assertEqual(text, "a   1   x\nb  10  xyz")

    def test_gap(self):
        self.assertEqual(table([["a", "b"]], gap=" | "), "a | b")

    def test_none_is_empty(self):
        self.assertEqual(table([["a", None, "b"]]), "a    b")

    def test_short_row(self):
        text = table([["a", "b"], ["c"]])
        self.assertEqual(text, "a  b\nc")

    def test_no_rows(self):
        self.assertEqual(table([]), "")

    def test_rows_are_left_alone(self):
        rows = [["a", "b"], ["c"]]
        table(rows)
        self.assertEqual(rows, [["a", "b"], ["c"]])

    def test_zero_is_shown(self):
        text = table([["oak", 0], ["ash", 7]])
        self.assertEqual(text, "oak  0\nash  7")

    def test_false_is_shown(self):
        self.assertEqual(table([[False, 0.0]]), "False  0.0")


if __name__ == "__main__":
    unittest.main()
