#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 5fb33dca26cdc82980f24d673c18a02cc7f2500f tests/test_reader.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_reader.py b/tests/test_reader.py
--- a/tests/test_reader.py
+++ b/tests/test_reader.py
@@ -53,6 +53,13 @@ class ValueTest(unittest.TestCase):
     def test_comment_after_quotes(self):
         self.assertEqual(self.value('"a # b" # note'), "a # b")
 
+    def test_comment_mark_inside_word(self):
+        self.assertEqual(self.value("page.html#top"), "page.html#top")
+        self.assertEqual(self.value("a;b ; note"), "a;b")
+
+    def test_comment_mark_first(self):
+        self.assertEqual(self.value("#ff8000"), "#ff8000")
+
 
 class LineTest(unittest.TestCase):
     def test_comment_lines(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 5fb33dca26cdc82980f24d673c18a02cc7f2500f tests/test_reader.py
