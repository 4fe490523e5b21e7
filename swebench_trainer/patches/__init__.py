"""Unified diffs: read and written."""
