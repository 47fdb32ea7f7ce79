"""The command line."""

from gpumlp.cli.program import main

__all__ = ["main"]
