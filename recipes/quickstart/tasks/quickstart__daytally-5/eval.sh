#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 59404a3596581fe3eeca39c247f7c81d3023e153 tests/test_months.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_months.py b/tests/test_months.py
--- a/tests/test_months.py
+++ b/tests/test_months.py
@@ -43,6 +43,10 @@ class MonthlyTest(unittest.TestCase):
     def test_end_before_start(self):
         self.assertEqual(monthly(date(2024, 1, 5), date(2024, 1, 4)), [])
 
+    def test_day_is_kept_after_a_short_month(self):
+        days = monthly(date(2024, 1, 31), date(2024, 5, 31))
+        self.assertEqual([day.day for day in days], [31, 29, 31, 30, 31])
+
 
 class LabelTest(unittest.TestCase):
     def test_quarter(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 59404a3596581fe3eeca39c247f7c81d3023e153 tests/test_months.py
