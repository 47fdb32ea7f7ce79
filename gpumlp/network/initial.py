"""Initial values of weights and biases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpumlp.activations import get_activation
from gpumlp.errors import suggest

__all__ = ["INITS", "initial_parameters"]


def _fans(rule: str, fan_in: int, fan_out: int, gain: float) -> float:
    """Standard deviation of a weight."""
    return math.sqrt(2 / (fan_in + fan_out)) if rule == "xavier" else math.sqrt(gain / fan_in)


#: name -> what it draws; f is the gain of the layer's activation (2 for ReLU-like ones, else 1)
INITS = {
    "auto": "he_normal before relu-like activations, xavier_uniform elsewhere; biases 0",
    "xavier_uniform": "U(-a, a), a = sqrt(6 / (n_in + n_out)); biases 0 (Glorot & Bengio 2010)",
    "xavier_normal": "N(0, 2 / (n_in + n_out)); biases 0",
    "he_uniform": "U(-a, a), a = sqrt(3 f / n_in); biases 0 (He et al. 2015)",
    "he_normal": "N(0, f / n_in); biases 0",
    "normal": "N(0, 0.01^2); biases 0 (d2l.ai); a number instead of the name is the standard deviation",
    "pytorch": "U(-a, a), a = sqrt(1 / n_in); biases from the same",
    "sklearn": "U(-a, a), a = sqrt(6 / (n_in + n_out)), 2 for sigmoid networks; biases from the same",
}


def initial_parameters(
    sizes: Sequence[int], activations: Sequence[str], init: str | float, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Initial values [(W (n_in, n_out), b (n_out,)), ...] in float64, drawn on the host.

    A network's `rng` is ``numpy.random.default_rng([seed, 0])``; layers are drawn in order, W before b, and
    then the parameters of an embedding.
    """
    sigma = float(init) if isinstance(init, (int, float)) and not isinstance(init, bool) else None
    if sigma is None and init not in INITS:
        raise ValueError(suggest("init", init, INITS))
    if sigma is not None and not 0 <= sigma < math.inf:
        raise ValueError(f"init={init!r}; expected a standard deviation >= 0 or one of {', '.join(INITS)}")
    parameters = []
    for n, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        last = n == len(sizes) - 2
        gain = 1.0 if last else get_activation(activations[n]).gain
        rule = str(init)
        if init == "auto":
            rule = "he_normal" if gain > 1 else "xavier_uniform"
        shape = (n_in, n_out)
        b = np.zeros(n_out)
        if sigma is not None or rule == "normal":
            w = np.zeros(shape) if sigma == 0 else rng.normal(0.0, 0.01 if sigma is None else sigma, shape)
        elif rule in ("sklearn", "pytorch"):
            factor = 2.0 if activations and activations[0] == "sigmoid" else 6.0
            bound = math.sqrt(1 / n_in if rule == "pytorch" else factor / (n_in + n_out))
            w, b = rng.uniform(-bound, bound, shape), rng.uniform(-bound, bound, n_out)
        else:
            std = _fans(rule.split("_")[0], n_in, n_out, gain)
            wide = std * math.sqrt(3)
            w = rng.normal(0.0, std, shape) if rule.endswith("normal") else rng.uniform(-wide, wide, shape)
        parameters.append((w, b))
    return parameters
