#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout ac8566ad418a5ba54ba1a2ad99229c6f287d4d42 tests/test_para.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_para.py b/tests/test_para.py
--- a/tests/test_para.py
+++ b/tests/test_para.py
@@ -74,6 +74,12 @@ class ShortenTest(unittest.TestCase):
         with self.assertRaises(ValueError):
             shorten("one two", 2)
 
+    def test_long_first_word_is_cut(self):
+        self.assertEqual(shorten("abcdefghij", 6), "abc...")
+
+    def test_long_first_word_before_others(self):
+        self.assertEqual(shorten("abcdefghij kl", 8), "abcde...")
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout ac8566ad418a5ba54ba1a2ad99229c6f287d4d42 tests/test_para.py
