"""The `generated` source: small repair tasks that are drawn from a seed."""
