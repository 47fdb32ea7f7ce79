"""Executors: NumPy, native CPU, CuPy; and how a device name becomes one of them."""
