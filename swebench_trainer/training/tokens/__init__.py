"""From rows of text to rows of tokens."""
