"""Samplers: transformers models and recorded predictions."""
