#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout c90e372125e7135e62851afd8aa5fca64cc98b69 tests/test_months.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_months.py b/tests/test_months.py
--- a/tests/test_months.py
+++ b/tests/test_months.py
@@ -53,6 +53,12 @@ class LabelTest(unittest.TestCase):
         self.assertEqual(week_label(date(2024, 2, 14)), "2024-W07")
         self.assertEqual(week_label(date(2024, 12, 29)), "2024-W52")
 
+    def test_week_label_before_new_year(self):
+        self.assertEqual(week_label(date(2024, 12, 30)), "2025-W01")
+
+    def test_week_label_after_new_year(self):
+        self.assertEqual(week_label(date(2021, 1, 1)), "2020-W53")
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout c90e372125e7135e62851afd8aa5fca64cc98b69 tests/test_months.py
