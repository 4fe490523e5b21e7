#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 078d8a24e1d7cf21087475e539029afbfc4148e0 tests/test_reader.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_reader.py b/tests/test_reader.py
--- a/tests/test_reader.py
+++ b/tests/test_reader.py
@@ -73,6 +73,15 @@ class LineTest(unittest.TestCase):
         with self.assertRaises(ParseError):
             loads("= a")
 
+    def test_number_of_first_line(self):
+        with self.assertRaises(ParseError) as caught:
+            loads("oops")
+        self.assertEqual(caught.exception.line, 1)
+
+    def test_number_in_message(self):
+        with self.assertRaisesRegex(ParseError, "^line 3: "):
+            loads("a = 1\n\noops\n")
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 078d8a24e1d7cf21087475e539029afbfc4148e0 tests/test_reader.py
