"""What goes into the model: the issue, and what of the repository is shown with it."""
