"""Instance sources, selection, splits, and leakage checks."""
