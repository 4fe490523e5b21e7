"""Counter-runs: a pass is trusted if the same patch fails tests that were changed to fail."""
