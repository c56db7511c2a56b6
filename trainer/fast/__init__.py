"""The fast paths of training: shared prefixes, stored references."""
