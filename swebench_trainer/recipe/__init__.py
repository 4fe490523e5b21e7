"""Recipes: TOML files as validated tables, or errors with a line and a caret."""
