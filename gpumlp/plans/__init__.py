"""From a network and rows to a list of operations."""
