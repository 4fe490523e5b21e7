"""The training loop: settings, checks, checkpoints, evaluation, and metrics."""
