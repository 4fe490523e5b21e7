"""Models: the recipe table, loading, attention, saving and merging."""
