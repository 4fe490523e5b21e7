"""Instance sources, splits, and the checks that every row must pass."""
