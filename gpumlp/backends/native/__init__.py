"""The native CPU executor."""
