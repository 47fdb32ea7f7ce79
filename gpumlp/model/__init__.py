"""The multilayer perceptron, and ensembles of them."""

from gpumlp.model.ensemble import Ensemble, greedy_choice, greedy_ensemble
from gpumlp.model.mlp import MLP, check_answers

__all__ = ["MLP", "Ensemble", "check_answers", "greedy_choice", "greedy_ensemble"]
