"""Writes the distribution of a new plugin: `swebench-train new-plugin`."""
