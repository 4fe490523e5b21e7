"""Holds what strangers wrote to its contract, and reports it by name where it is not."""
