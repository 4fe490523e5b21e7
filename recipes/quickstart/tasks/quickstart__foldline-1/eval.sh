#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 8b14e7253b720edc4aff90fa91a696fcc69c26e5 tests/test_para.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_para.py b/tests/test_para.py
--- a/tests/test_para.py
+++ b/tests/test_para.py
@@ -27,6 +27,12 @@ class WrapTest(unittest.TestCase):
         with self.assertRaises(ValueError):
             wrap("one", 2, "  ")
 
+    def test_line_of_exactly_width(self):
+        self.assertEqual(wrap("one two three", 7), ["one two", "three"])
+
+    def test_text_of_exactly_width(self):
+        self.assertEqual(wrap("one two", 7), ["one two"])
+
 
 class FillTest(unittest.TestCase):
     def test_keeps_paragraphs(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 8b14e7253b720edc4aff90fa91a696fcc69c26e5 tests/test_para.py
