#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 0236ce407dd287702bf2e271630cd79160e0a82c tests/test_writer.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_writer.py b/tests/test_writer.py
--- a/tests/test_writer.py
+++ b/tests/test_writer.py
@@ -17,6 +17,13 @@ class QuoteTest(unittest.TestCase):
     def test_comment_mark(self):
         self.assertEqual(quote("a # b"), '"a # b"')
 
+    def test_quotes_in_value(self):
+        self.assertEqual(quote('say "hi"'), r'"say \"hi\""')
+
+    def test_quotes_and_backslash(self):
+        sections = {"x": {"a": 'C:\\new "folder"'}}
+        self.assertEqual(loads(dumps(sections)), sections)
+
 
 class DumpsTest(unittest.TestCase):
     def test_sections(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 0236ce407dd287702bf2e271630cd79160e0a82c tests/test_writer.py
