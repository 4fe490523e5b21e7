"""Which rows the model reads at once, and how."""
