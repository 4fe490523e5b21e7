#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout a6c1cc8c794e87012dfb45de20316b531d2d4c59 tests/test_para.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_para.py b/tests/test_para.py
--- a/tests/test_para.py
+++ b/tests/test_para.py
@@ -50,6 +50,12 @@ class IndentTest(unittest.TestCase):
     def test_empty_text(self):
         self.assertEqual(indent(""), "")
 
+    def test_blank_lines_get_no_prefix(self):
+        self.assertEqual(indent("a\n\nb\n", "  "), "  a\n\n  b\n")
+
+    def test_line_of_spaces_is_kept(self):
+        self.assertEqual(indent("a\n \nb", "> "), "> a\n \n> b")
+
 
 class ShortenTest(unittest.TestCase):
     def test_text_that_fits(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout a6c1cc8c794e87012dfb45de20316b531d2d4c59 tests/test_para.py
