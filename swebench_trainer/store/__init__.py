"""The run directory on disk: paths, append-only rows, digests, the lock."""
