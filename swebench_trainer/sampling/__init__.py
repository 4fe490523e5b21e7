"""Writers of answers: the transformers sampler and recorded predictions."""
