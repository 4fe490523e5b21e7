#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 93077b45c2185cfc68cb81fc22f47246b3601952 tests/test_reader.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_reader.py b/tests/test_reader.py
--- a/tests/test_reader.py
+++ b/tests/test_reader.py
@@ -21,6 +21,11 @@ class SectionTest(unittest.TestCase):
     def test_empty(self):
         self.assertEqual(loads(""), {})
 
+    def test_section_may_be_continued(self):
+        text = "[x]\na = 1\n[y]\n[x]\nb = 2\n"
+        sections = {"x": {"a": "1", "b": "2"}, "y": {}}
+        self.assertEqual(loads(text), sections)
+
 
 class ValueTest(unittest.TestCase):
     def value(self, text):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 93077b45c2185cfc68cb81fc22f47246b3601952 tests/test_reader.py
