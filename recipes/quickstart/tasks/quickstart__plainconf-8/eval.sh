#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 22ff66b0b6cfa955a8ad9fcaaecf2d06ae22fba7 tests/test_config.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_config.py b/tests/test_config.py
--- a/tests/test_config.py
+++ b/tests/test_config.py
@@ -53,6 +53,14 @@ class GetTest(unittest.TestCase):
         self.assertEqual(self.config.get("server", "Host"), "example.org")
         self.assertEqual(self.config.get_int("backup", "TIMEOUT"), 90)
 
+    def test_list_of_missing_key(self):
+        self.assertEqual(self.config.get_list("server", "users"), [])
+
+    def test_list_with_comma_at_the_end(self):
+        self.config.set("server", "users", "ann, bob,")
+        users = self.config.get_list("server", "users")
+        self.assertEqual(users, ["ann", "bob"])
+
 
 class ChangeTest(unittest.TestCase):
     def test_set(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 22ff66b0b6cfa955a8ad9fcaaecf2d06ae22fba7 tests/test_config.py
