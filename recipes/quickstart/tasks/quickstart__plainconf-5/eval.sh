#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 6749e15f4ed4259e0ad592b7067bfebc8f145ac2 tests/test_config.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_config.py b/tests/test_config.py
--- a/tests/test_config.py
+++ b/tests/test_config.py
@@ -75,6 +75,13 @@ class ChangeTest(unittest.TestCase):
         self.assertEqual(merged.get("x", "b"), "3")
         self.assertEqual(merged.get("y", "c"), "4")
 
+    def test_merge_leaves_both_alone(self):
+        base = Config({"x": {"a": "1"}})
+        other = Config({"x": {"a": "2"}})
+        base.merge(other).set("x", "b", "3")
+        self.assertEqual(base.dumps(), "[x]\na = 1\n")
+        self.assertEqual(other.dumps(), "[x]\na = 2\n")
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 6749e15f4ed4259e0ad592b7067bfebc8f145ac2 tests/test_config.py
