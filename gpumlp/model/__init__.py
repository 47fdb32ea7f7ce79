"""The multilayer perceptron."""

from gpumlp.model.mlp import MLP, check_answers

__all__ = ["MLP", "check_answers"]
