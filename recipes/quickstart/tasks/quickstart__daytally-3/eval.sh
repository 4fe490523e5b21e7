#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 7e6a662ef0cf43aa95e0a92d8290fae2e0a64d5e tests/test_durations.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_durations.py b/tests/test_durations.py
--- a/tests/test_durations.py
+++ b/tests/test_durations.py
@@ -36,6 +36,10 @@ class ShowTest(unittest.TestCase):
     def test_rounds_to_the_second(self):
         self.assertEqual(show(timedelta(seconds=59.7)), "1m")
 
+    def test_negative(self):
+        self.assertEqual(show(timedelta(seconds=-45)), "-45s")
+        self.assertEqual(show(timedelta(minutes=-90)), "-1h30m")
+
 
 class RoundUpTest(unittest.TestCase):
     def test_rounds_up(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 7e6a662ef0cf43aa95e0a92d8290fae2e0a64d5e tests/test_durations.py
