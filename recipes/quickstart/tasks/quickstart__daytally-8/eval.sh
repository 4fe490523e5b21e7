#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 325314406549bd70e74a2a4de80d964b9b52ab24 tests/test_durations.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_durations.py b/tests/test_durations.py
--- a/tests/test_durations.py
+++ b/tests/test_durations.py
@@ -55,6 +55,14 @@ class RoundUpTest(unittest.TestCase):
         self.assertEqual(round_up(timedelta(minutes=1), step), step)
         self.assertEqual(round_up(timedelta(minutes=16), step), 2 * step)
 
+    def test_multiple_is_kept(self):
+        step = timedelta(minutes=15)
+        self.assertEqual(round_up(2 * step, step), 2 * step)
+
+    def test_zero_is_kept(self):
+        zero = timedelta(0)
+        self.assertEqual(round_up(zero, timedelta(minutes=6)), zero)
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 325314406549bd70e74a2a4de80d964b9b52ab24 tests/test_durations.py
