"""The former place of these two, kept for programs that import them from here."""

from gpumlp.backends.native.build import find_compiler
from gpumlp.backends.native.text import kernel_source

__all__ = ["find_compiler", "kernel_source"]
