#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout 5464bc939eb260fea024fa04c0ce68d58bfee53d tests/test_words.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_words.py b/tests/test_words.py
--- a/tests/test_words.py
+++ b/tests/test_words.py
@@ -44,6 +44,13 @@ class OrdinalTest(unittest.TestCase):
         self.assertEqual(ordinal(20), "20th")
         self.assertEqual(ordinal(42), "42nd")
 
+    def test_teens_of_a_hundred(self):
+        names = [ordinal(number) for number in (111, 212, 1013)]
+        self.assertEqual(names, ["111th", "212th", "1013th"])
+
+    def test_hundred_and_one(self):
+        self.assertEqual(ordinal(101), "101st")
+
 
 class PluralTest(unittest.TestCase):
     def test_one(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout 5464bc939eb260fea024fa04c0ce68d58bfee53d tests/test_words.py
