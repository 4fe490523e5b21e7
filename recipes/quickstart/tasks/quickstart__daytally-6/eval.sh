#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 60c65622ec7e39ae5b36f6a96e983c380421212c tests/test_durations.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_durations.py b/tests/test_durations.py
--- a/tests/test_durations.py
+++ b/tests/test_durations.py
@@ -23,6 +23,14 @@ class ParseTest(unittest.TestCase):
         with self.assertRaises(ValueError):
             parse("")
 
+    def test_missing_last_unit(self):
+        with self.assertRaises(ValueError):
+            parse("1h30")
+
+    def test_unknown_last_unit(self):
+        with self.assertRaises(ValueError):
+            parse("2d 3 apples")
+
 
 class ShowTest(unittest.TestCase):
     def test_units(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 60c65622ec7e39ae5b36f6a96e983c380421212c tests/test_durations.py
