"""Pair strategies: how graded candidates become preferences."""
