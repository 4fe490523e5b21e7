"""Forms of a model's answer, and how a patch is found and repaired in it."""
