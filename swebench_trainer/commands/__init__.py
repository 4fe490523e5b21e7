"""The commands of `swebench-train`; `cli.py` declares their options."""
