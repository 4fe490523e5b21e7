"""The recipe: from a TOML file to validated tables, or to errors with a line and a caret."""
