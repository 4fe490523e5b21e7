#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 923e7b97d25ce356f6486455f88d5de5b5aa85c8 tests/test_workdays.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_workdays.py b/tests/test_workdays.py
--- a/tests/test_workdays.py
+++ b/tests/test_workdays.py
@@ -57,6 +57,11 @@ class AddTest(unittest.TestCase):
     def test_weeks(self):
         self.assertEqual(add_workdays(MONDAY, 10), date(2024, 5, 20))
 
+    def test_holidays_from_a_generator(self):
+        holidays = (date(2024, 5, number) for number in (8, 9))
+        day = add_workdays(FRIDAY, 3, holidays)
+        self.assertEqual(day, date(2024, 5, 10))
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 923e7b97d25ce356f6486455f88d5de5b5aa85c8 tests/test_workdays.py
