#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 5e0581ac8f67bbccd6318a8989965add2b8258bf tests/test_words.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_words.py b/tests/test_words.py
--- a/tests/test_words.py
+++ b/tests/test_words.py
@@ -70,6 +70,10 @@ class PluralTest(unittest.TestCase):
     def test_irregular(self):
         self.assertEqual(plural(3, "child", "children"), "3 children")
 
+    def test_vowel_and_y(self):
+        self.assertEqual(plural(2, "key"), "2 keys")
+        self.assertEqual(plural(0, "day"), "0 days")
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 5e0581ac8f67bbccd6318a8989965add2b8258bf tests/test_words.py
