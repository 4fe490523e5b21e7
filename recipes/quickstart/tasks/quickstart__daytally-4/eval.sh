#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 3ab874a4fe89f5d942cf00e2827bd389c6b4fada tests/test_workdays.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_workdays.py b/tests/test_workdays.py
--- a/tests/test_workdays.py
+++ b/tests/test_workdays.py
@@ -32,6 +32,14 @@ class CountTest(unittest.TestCase):
         holidays = [MONDAY, MONDAY]
         self.assertEqual(count_workdays(Span(FRIDAY, MONDAY), holidays), 1)
 
+    def test_holiday_on_a_weekend(self):
+        span = Span(FRIDAY, MONDAY)
+        self.assertEqual(count_workdays(span, [SATURDAY]), 2)
+
+    def test_span_of_one_free_saturday(self):
+        span = Span(SATURDAY, SATURDAY)
+        self.assertEqual(count_workdays(span, [SATURDAY]), 0)
+
 
 class AddTest(unittest.TestCase):
     def test_over_the_weekend(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 3ab874a4fe89f5d942cf00e2827bd389c6b4fada tests/test_workdays.py
