"""The CuPy executor."""
