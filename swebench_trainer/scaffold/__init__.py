"""Distributions of new plugins, for `swebench-train new-plugin`."""
