"""What the model reads: the issue, and the parts of the repository shown with it."""
