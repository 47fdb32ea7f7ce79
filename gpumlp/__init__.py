"""Multilayer perceptrons on NVIDIA GPUs through CuPy, and on the CPU by the same program.

Importing this package imports neither CuPy nor scikit-learn.
"""

from __future__ import annotations

from gpumlp.backends import get_backend
from gpumlp.checkpoint import load_model as load
from gpumlp.errors import DeviceError, DivergenceError
from gpumlp.history import EarlyStopping, History
from gpumlp.losses import Huber
from gpumlp.network import MLP
from gpumlp.optimizers import SGD, AdaGrad, Adam, AdamW, RMSProp
from gpumlp.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "DeviceError",
    "DivergenceError",
    "EarlyStopping",
    "History",
    "Huber",
    "RMSProp",
    "Trainer",
    "__version__",
    "get_backend",
    "load",
]
