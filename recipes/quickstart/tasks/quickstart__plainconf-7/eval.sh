#!/bin/bash
set -uxo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd /testbed
git config --global --add safe.directory /testbed
git checkout e56cfd377ad61a47d3090ac7f5dee63404b4dd7a tests/test_writer.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_writer.py b/tests/test_writer.py
--- a/tests/test_writer.py
+++ b/tests/test_writer.py
@@ -41,6 +41,10 @@ class DumpsTest(unittest.TestCase):
         sections = {"x": {"a": " b", "c": "d; e", "f": ""}}
         self.assertEqual(loads(dumps(sections)), sections)
 
+    def test_top_section_comes_first(self):
+        text = dumps({"y": {"b": "2"}, "x": {}, "": {"a": "1"}})
+        self.assertEqual(text, "a = 1\n\n[y]\nb = 2\n\n[x]\n")
+
 
 if __name__ == "__main__":
     unittest.main()
EOF_114329324912
: '>>>>> Start Test Output'
python3 -m unittest discover -v
: '>>>>> End Test Output'
git checkout e56cfd377ad61a47d3090ac7f5dee63404b4dd7a tests/test_writer.py
