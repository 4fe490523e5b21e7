#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 5c72928341418e8bb2e225f7ecae4f42d81d7325 tests/test_config.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_config.py b/tests/test_config.py
--- a/tests/test_config.py
+++ b/tests/test_config.py
@@ -49,6 +49,10 @@ class GetTest(unittest.TestCase):
         ports = self.config.get_list("server", "ports")
         self.assertEqual(ports, ["80", "443"])
 
+    def test_case_of_key_is_ignored(self):
+        self.assertEqual(self.config.get("server", "Host"), "example.org")
+        self.assertEqual(self.config.get_int("backup", "TIMEOUT"), 90)
+
 
 class ChangeTest(unittest.TestCase):
     def test_set(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 5c72928341418e8bb2e225f7ecae4f42d81d7325 tests/test_config.py
