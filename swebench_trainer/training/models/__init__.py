"""Models: the recipe's table, loading, attention, saving, merging, built-in models."""
