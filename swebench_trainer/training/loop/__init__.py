"""The steps of a training, and what happens around them."""
