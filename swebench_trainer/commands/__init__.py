"""The commands of `swebench-train`, one module each; `cli.py` declares their options."""
