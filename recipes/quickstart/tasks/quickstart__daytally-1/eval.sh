#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout acb3dda2641398f62a619e91c662422c53272fb0 tests/test_spans.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_spans.py b/tests/test_spans.py
--- a/tests/test_spans.py
+++ b/tests/test_spans.py
@@ -46,6 +46,12 @@ class MergeTest(unittest.TestCase):
         spans = [may(9, 9), may(1, 3), may(2, 4)]
         self.assertEqual(merge(spans), [may(1, 4), may(9, 9)])
 
+    def test_span_inside_another(self):
+        self.assertEqual(merge([may(1, 9), may(3, 4)]), [may(1, 9)])
+
+    def test_same_start(self):
+        self.assertEqual(merge([may(1, 2), may(1, 9)]), [may(1, 9)])
+
 
 class GapsTest(unittest.TestCase):
     def test_nothing_planned(self):
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout acb3dda2641398f62a619e91c662422c53272fb0 tests/test_spans.py
