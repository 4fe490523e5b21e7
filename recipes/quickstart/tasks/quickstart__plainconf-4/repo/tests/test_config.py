import unittest

from plainconf import Config

TEXT = """
timeout = 30

[server]
Host = example.org
ports = 80, 443
mask = 0xff
debug = No

[backup]
timeout = 90
"""


class GetTest(unittest.TestCase):
    def setUp(self):
        self.config = Config.loads(TEXT)

    def test_value(self):
        self.assertEqual(self.config.get("server", "host"), "example.org")

    def test_top_section_is_a_fallback(self):
        self.assertEqual(self.config.get("server", "timeout"), "30")
        self.assertEqual(self.config.get("backup", "timeout"), "90")
        self.assertEqual(self.config.get("other", "timeout"), "30")

    def test_default(self):
        self.assertIsNone(self.config.get("server", "user"))
        self.assertEqual(self.config.get("server", "user", "me"), "me")

    def test_int(self):
        self.assertEqual(self.config.get_int("server", "timeout"), 30)
        self.assertEqual(self.config.get_int("server", "mask"), 255)
        self.assertEqual(self.config.get_int("server", "tries", 3), 3)

    def test_bool(self):
        self.assertIs(self.config.get_bool("server", "debug"), False)
        self.assertIs(self.config.get_bool("server", "trace", True), True)

    def test_not_a_bool(self):
        with self.assertRaises(ValueError):
            self.config.get_bool("server", "host")

    def test_list(self):
        ports = self.config.get_list("server", "ports")
        self.assertEqual(ports, ["80", "443"])

    def test_case_of_key_is_ignored(self):
        self.assertEqual(self.config.get("server", "Host"), "example.org")
        self.assertEqual(self.config.get_int("backup", "TIMEOUT"), 90)


class ChangeTest(unittest.TestCase):
    def test_set(self):
        config = Config()
        config.set("x", "a", 1)
        self.assertEqual(config.dumps(), "[x]\na = 1\n")

    def test_empty_section_is_kept(self):
        self.assertEqual(Config({"x": {}}).dumps(), "[x]\n")

    def test_sections_are_copied(self):
        sections = {"x": {"a": "1"}}
        Config(sections).set("x", "a", "2")
        self.assertEqual(sections, {"x": {"a": "1"}})

    def test_merge(self):
        base = Config({"x": {"a": "1", "b": "2"}})
        merged = base.merge(Config({"x": {"b": "3"}, "y": {"c": "4"}}))
        self.assertEqual(merged.get("x", "a"), "1")
        self.assertEqual(merged.get("x", "b"), "3")
        self.assertEqual(merged.get("y", "c"), "4")


if __name__ == "__main__":
    unittest.main()
