"""Files on disk: run directories, rows, predictions, digests, locks, and the cache."""
