"""From rows of tokens to the batches that a model reads."""
