"""The former place of `save_model` and `load_model`, kept for programs that import them from here."""

from gpumlp.model.load import load_model
from gpumlp.model.saved import save_model

__all__ = ["load_model", "save_model"]
