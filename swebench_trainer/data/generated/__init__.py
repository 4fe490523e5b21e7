"""The `generated` source: small repair tasks generated from a seed."""
