"""Graders: one official eval script, run in Docker, in a namespace, or by the stock harness."""
