"""Multilayer perceptrons on NVIDIA GPUs through CuPy, and on the CPU by the same program.

Importing this package imports neither CuPy nor scikit-learn; what reads model files is imported with `load`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpumlp.activations import Activation
from gpumlp.backends import free_memory, get_backend
from gpumlp.errors import DeviceError, DivergenceError, ModelFileError
from gpumlp.losses import BinaryCrossEntropy, Huber, Loss, Quantile, SoftmaxCrossEntropy
from gpumlp.model import MLP, Ensemble, greedy_ensemble
from gpumlp.network import Embedding
from gpumlp.optimizers import (
    OPTIMIZERS,
    SGD,
    Adadelta,
    AdaGrad,
    Adam,
    AdamW,
    Lion,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSProp,
    Yogi,
)
from gpumlp.own import check_gradients, register
from gpumlp.training.halving import SuccessiveHalving
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.many import fit_many
from gpumlp.training.trainer import Trainer
from gpumlp.training.warmup import warmup
from gpumlp.version import __version__

if TYPE_CHECKING:
    from gpumlp import model_selection
    from gpumlp.estimators.mlp import MLPClassifier, MLPRegressor
    from gpumlp.tabular.estimators import TabularClassifier, TabularRegressor
    from gpumlp.tabular.load import load

__all__ = [
    "MLP",
    "SGD",
    "Activation",
    "AdaGrad",
    "Adadelta",
    "Adam",
    "AdamW",
    "BinaryCrossEntropy",
    "DeviceError",
    "DivergenceError",
    "EarlyStopping",
    "Embedding",
    "Ensemble",
    "History",
    "Huber",
    "Lion",
    "Loss",
    "MLPClassifier",
    "MLPRegressor",
    "ModelFileError",
    "Muon",
    "NAdam",
    "Optimizer",
    "Quantile",
    "RAdam",
    "RMSProp",
    "SoftmaxCrossEntropy",
    "SuccessiveHalving",
    "TabularClassifier",
    "TabularRegressor",
    "Trainer",
    "Yogi",
    "__version__",
    "callbacks",
    "check_gradients",
    "fit_many",
    "free_memory",
    "get_backend",
    "greedy_ensemble",
    "load",
    "model_selection",
    "register",
    "warmup",
]
for _rule in OPTIMIZERS.values():  # those of the table in kernels/optimizers that are not named above
    if _rule.__name__ not in __all__:
        globals()[_rule.__name__] = _rule
        __all__.append(_rule.__name__)


def __getattr__(name: str) -> Any:
    """The estimators and their searches are imported on first use, because they need scikit-learn; so is
    `load`, because of the modules it needs."""
    if name == "load":
        from gpumlp.tabular.load import load

        globals()["load"] = load
        return load
    if name in ("callbacks", "export", "report"):
        return importlib.import_module(f"gpumlp.{name}")
    modules = ("dask", "model_selection")
    lazy = ("MLPClassifier", "MLPRegressor", "TabularClassifier", "TabularRegressor", *modules)
    if name not in lazy:
        raise AttributeError(f"module 'gpumlp' has no attribute {name!r}")
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"gpumlp.{name} needs scikit-learn ({error}); install it with: pip install scikit-learn"
        ) from None
    if name in modules:
        return importlib.import_module(f"gpumlp.{name}")
    from gpumlp import estimators
    from gpumlp.tabular import estimators as tabular

    return getattr(tabular if name.startswith("Tabular") else estimators, name)


def __dir__() -> list[str]:
    return __all__
