#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout f0c69182aa4b4066d1cb11a33e3b5bdca851b7de tests/test_grid.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_grid.py b/tests/test_grid.py
--- a/tests/test_grid.py
+++ b/tests/test_grid.py
@@ -34,6 +34,13 @@ class TableTest(unittest.TestCase):
         table(rows)
         self.assertEqual(rows, [["a", "b"], ["c"]])
 
+    def test_zero_is_shown(self):
+        text = table([["oak", 0], ["ash", 7]])
+        self.assertEqual(text, "oak  0\nash  7")
+
+    def test_false_is_shown(self):
+        self.assertEqual(table([[False, 0.0]]), "False  0.0")
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout f0c69182aa4b4066d1cb11a33e3b5bdca851b7de tests/test_grid.py
