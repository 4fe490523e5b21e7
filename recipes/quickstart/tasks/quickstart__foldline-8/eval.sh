#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 4fb2365dd7ecdd4719d9086e486eb8f7d8be83ff tests/test_para.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_para.py b/tests/test_para.py
--- a/tests/test_para.py
+++ b/tests/test_para.py
@@ -33,6 +33,10 @@ class WrapTest(unittest.TestCase):
     def test_text_of_exactly_width(self):
         self.assertEqual(wrap("one two", 7), ["one two"])
 
+    def test_long_word_after_hanging_indent(self):
+        lines = wrap("ab cdefghij", 6, "  ")
+        self.assertEqual(lines, ["ab", "  cdef", "  ghij"])
+
 
 class FillTest(unittest.TestCase):
     def test_keeps_paragraphs(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 4fb2365dd7ecdd4719d9086e486eb8f7d8be83ff tests/test_para.py
