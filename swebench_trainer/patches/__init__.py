"""Unified diffs: three readers (strict, lenient, hostile input), writing and reversing."""
