"""The update rules.  A new rule is one file here and one line in `OPTIMIZERS`; tests, CLI and docs read this
dict."""

from gpumlp.kernels.optimizers.adagrad import AdaGrad
from gpumlp.kernels.optimizers.adam import Adam, AdamW
from gpumlp.kernels.optimizers.base import Optimizer
from gpumlp.kernels.optimizers.rmsprop import RMSProp
from gpumlp.kernels.optimizers.sgd import SGD

__all__ = ["OPTIMIZERS", "SGD", "AdaGrad", "Adam", "AdamW", "Optimizer", "RMSProp"]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    rule.name: rule
    for rule in (
        SGD,
        AdaGrad,
        RMSProp,
        Adam,
        AdamW,
    )
}
