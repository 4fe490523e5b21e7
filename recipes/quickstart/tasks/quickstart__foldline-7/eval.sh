#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout dc8f60e505a2c4bd7887b776e180256e69714e5b tests/test_grid.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_grid.py b/tests/test_grid.py
--- a/tests/test_grid.py
+++ b/tests/test_grid.py
@@ -41,6 +41,14 @@ class TableTest(unittest.TestCase):
     def test_false_is_shown(self):
         self.assertEqual(table([[False, 0.0]]), "False  0.0")
 
+    def test_long_row_after_short_row(self):
+        text = table([["a"], ["b", "c"]])
+        self.assertEqual(text, "a\nb  c")
+
+    def test_row_longer_than_header(self):
+        text = table([["b", "c"]], header=["x"])
+        self.assertEqual(text, "x\n-  -\nb  c")
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout dc8f60e505a2c4bd7887b776e180256e69714e5b tests/test_grid.py
