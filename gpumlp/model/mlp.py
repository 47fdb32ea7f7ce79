"""The network: layer sizes, activations, initialisation, and the one flat buffer that holds all parameters.

Layer l maps n_in values to n_out by ``z = x W + b``.  Its block of the flat buffer is a row-major matrix of
n_in + 1 rows (padded to a multiple of 8) and n_out columns (padded to 1, 2, 4 or a multiple of 8): rows
0..n_in-1 are W, row n_in is b.  Activations carry a constant 1 in column n_in, so bias addition and bias
gradient are part of the gemms.  Padding is zero and stays zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.activations import get_activation
from gpumlp.backends import Backend, get_backend
from gpumlp.backends.base import on_device
from gpumlp.errors import suggest

if TYPE_CHECKING:
    from gpumlp.plans.operations import ForwardPlan

__all__ = ["INITS", "MLP", "Layer", "pad"]

_ALIGN = 64  # elements between starts of layer blocks: at least 256 bytes


def pad(n: int) -> int:
    """`n` rounded up to 1, 2, 4 or a multiple of 8."""
    return 1 << (n - 1).bit_length() if n < 8 else -(-n // 8) * 8


@dataclass(frozen=True)
class Layer:
    """Where one layer lies in the flat buffer (units: elements)."""

    n_in: int
    n_out: int
    offset: int

    @property
    def ld(self) -> int:
        """Row stride."""
        return pad(self.n_out)

    @property
    def size(self) -> int:
        """Elements of the block, padding included."""
        return -(-(self.n_in + 1) // 8) * 8 * self.ld

    def matrix(self, flat: Any, rows: int = 0) -> Any:
        """View (n_in + 1, n_out) of the layer's weights and, in the last row, biases; with `rows`, that many
        rows, of which those behind the biases are zero."""
        block = flat[self.offset : self.offset + self.size].reshape(-1, self.ld)
        return block[: rows or self.n_in + 1, : self.n_out]


def layout(sizes: Sequence[int]) -> tuple[list[Layer], int]:
    """Layers for `sizes`, and the length of the flat buffer."""
    layers, offset = [], 0
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers.append(Layer(n_in, n_out, offset))
        offset += -(-layers[-1].size // _ALIGN) * _ALIGN
    return layers, offset


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
    sizes: Sequence[int], activations: Sequence[str], init: str | float, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Start values [(W (n_in, n_out), b (n_out,)), ...] in float64, drawn on the host.

    The generator is ``numpy.random.default_rng([seed, 0])``; layers are drawn in order, W before b.
    """
    sigma = float(init) if isinstance(init, (int, float)) and not isinstance(init, bool) else None
    if sigma is None and init not in INITS:
        raise ValueError(suggest("init", init, INITS))
    if sigma is not None and not 0 <= sigma < math.inf:
        raise ValueError(f"init={init!r}; expected a standard deviation >= 0 or one of {', '.join(INITS)}")
    rng = np.random.default_rng([seed, 0])
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


class MLP:
    """A multilayer perceptron.

    Parameters
    ----------
    layer_sizes : sequence of int
        Inputs, hidden layers, outputs: ``[784, 256, 10]``.  Two numbers make a linear model.
    activation : str or sequence of str
        One name for all hidden layers, or one per hidden layer; see `gpumlp.activations.ACTIVATIONS`.  The
        output layer is linear: the loss applies softmax, sigmoid or exp.
    dropout : float or sequence of float
        Probability, in [0, 1), that a hidden unit's output is set to 0 in training; one per hidden layer or
        one for all.
    init : str or float
        See `gpumlp.model.mlp.INITS`; a number is the standard deviation of normal weights.
    seed : int
        Of the start values; the same on every device.
    dtype : str
        "float32" or "float64".
    device : str
        "auto", "cpu", "numpy", "native", "cuda" (or "gpu"), "cuda:1".

    Attributes
    ----------
    weights, biases : list of arrays
        Views (n_in, n_out) and (n_out,) of the parameters on the model's device; writing to them changes the
        model.
    n_params : int
        Number of weights and biases (without padding).
    extra : dict
        Anything that JSON can hold, kept in the model's file: the command line stores names and scaling here.
    output : str
        "identity", "softmax", "sigmoid" or "exp": how `predict` reads the network's output.  Training with a
        `Trainer` sets it according to the loss.

    Raises
    ------
    ValueError
        Sizes, names or probabilities that make no network.
    gpumlp.DeviceError
        A named device that cannot be used.

    Examples
    --------
    >>> import gpumlp
    >>> model = gpumlp.MLP([4, 8, 3], device="cpu")
    >>> model.n_params
    67
    >>> model.forward([[5.1, 3.5, 1.4, 0.2]]).shape
    (1, 3)
    """

    def __init__(
        self,
        layer_sizes: Sequence[int],
        activation: str | Sequence[str] = "relu",
        *,
        dropout: float | Sequence[float] = 0.0,
        init: str | float = "auto",
        seed: int = 0,
        dtype: Any = "float32",
        device: str | Backend = "auto",
    ) -> None:
        self.layer_sizes = _check_sizes(layer_sizes)
        hidden = len(self.layer_sizes) - 2
        self.activations = _per_layer("activation", activation, hidden)
        for name in [*self.activations, *([activation] if isinstance(activation, str) else [])]:
            get_activation(name)
        self.dropouts = [_check_rate(p) for p in _per_layer("dropout", dropout, hidden)]
        if not hasattr(dropout, "__len__"):
            _check_rate(dropout)  # also where there is no hidden layer that it could apply to
        self.seed = _check_seed(seed)
        self.init = init
        try:
            self.dtype = np.dtype(dtype)
        except TypeError:
            raise ValueError(f"dtype={dtype!r}; expected 'float32' or 'float64'") from None
        if dtype is None or self.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"dtype={dtype if dtype is None else str(dtype)!r}; expected 'float32' or 'float64'"
            )
        self.output = "identity"
        self.extra: dict[str, Any] = {}
        self.layers, self.flat_size = layout(self.layer_sizes)
        self.backend = get_backend(device)
        self.flat = self.backend.zeros(self.flat_size, self.dtype)
        self._plans: dict[int, ForwardPlan] = {}
        self.set_parameters(initial_parameters(self.layer_sizes, self.activations, init, self.seed))

    # ---- parameters -----------------------------------------------
    @property
    def device(self) -> str:
        """ "cpu" or "cuda:<number>"."""
        return self.backend.device

    @property
    def dropout(self) -> float | list[float]:
        """One rate if all layers have the same, else one per hidden layer."""
        return self.dropouts[0] if len(set(self.dropouts)) == 1 else (self.dropouts or 0.0)

    @property
    def weights(self) -> list[Any]:
        """Views (n_in, n_out) of the flat buffer, one per layer."""
        return [layer.matrix(self.flat)[:-1] for layer in self.layers]

    @property
    def biases(self) -> list[Any]:
        """Views (n_out,) of the flat buffer, one per layer."""
        return [layer.matrix(self.flat)[-1] for layer in self.layers]

    @property
    def n_params(self) -> int:
        """Number of weights and biases."""
        return sum((layer.n_in + 1) * layer.n_out for layer in self.layers)

    @property
    def segments(self) -> list[tuple[int, int, float]]:
        """Ranges of the flat buffer with decay 1 (weights) and 0 (biases and padding behind them)."""
        ranges = []
        for layer, stop in zip(
            self.layers, [*(n.offset for n in self.layers[1:]), self.flat_size], strict=True
        ):
            bias = layer.offset + layer.n_in * layer.ld
            ranges += [(layer.offset, bias, 1.0), (bias, stop, 0.0)]
        return ranges

    def get_parameters(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Copies [(W, b), ...] on the host."""
        return unflatten(self.layers, self.backend.to_numpy(self.flat))

    def set_parameters(self, parameters: Sequence[tuple[Any, Any]]) -> None:
        """Take over [(W (n_in, n_out), b (n_out,)), ...] from the host; ValueError if a shape differs."""
        self.backend.copy(self.flat, flatten(self.layers, parameters, self.flat_size, self.dtype))

    def to(self, device: str | Backend) -> MLP:
        """Move the parameters to another device, in place; returns the model."""
        backend = get_backend(device)
        if backend is not self.backend:
            host = self.backend.to_numpy(self.flat)
            self.flat = backend.asarray(host)
            self.backend = backend
            self._plans = {}
        return self

    # ---- use -----------------------------------------------
    def forward(self, X: Any) -> Any:
        """Network output before softmax, sigmoid or exp, without dropout.

        Parameters
        ----------
        X : array-like (n_rows, n_inputs)
            NumPy, CuPy, or anything that NumPy takes.

        Returns
        -------
        array (n_rows, n_outputs) of the model's dtype
            CuPy if `X` is CuPy, else NumPy.
        """
        return self._run(X, "identity")

    @on_device
    def predict(self, X: Any) -> Any:
        """The answer: class numbers, int64 (n_rows,) (0/1 of shape (n_rows, n_outputs) for several sigmoid
        outputs), or values, (n_rows,) for one output, else (n_rows, n_outputs).  Parameters as in
        `forward`.

        What is answered follows `output`, which training with a `Trainer` sets according to its loss; of a
        new network these are the values of `forward`.  Making or evaluating with a `Trainer` does not change
        it."""
        z = self._run(X, "exp" if self.output == "exp" else "identity")
        if self.output in ("softmax", "sigmoid"):
            check_answers(z)
        one = z.shape[1] == 1
        if self.output == "softmax":
            return z.argmax(axis=1)
        if self.output == "sigmoid":
            z = (z > 0).astype("int64")
        return z[:, 0] if one else z

    @on_device
    def predict_proba(self, X: Any) -> Any:
        """Class probabilities (n_rows, n_outputs); for a classifier with one sigmoid output (n_rows, 2)."""
        if self.output not in ("softmax", "sigmoid"):
            raise TypeError(
                f"predict_proba needs a classifier; this model's output is {self.output!r} "
                "(a Trainer with softmax_cross_entropy or binary_cross_entropy makes one)"
            )
        p = self._run(X, self.output)
        if p.shape[1] > 1 or self.output == "softmax":
            return p
        from gpumlp.backends import backend_of

        return backend_of(p).xp.concatenate([1 - p, p], axis=1)

    @on_device
    def _run(self, X: Any, link: str) -> Any:
        from gpumlp.plans.operations import forward

        return forward(self, X, link, self._plans)

    def save(self, path: Any) -> None:
        """Write the model to one .npz file, atomically; `gpumlp.load` reads it.  Loading never runs code."""
        from gpumlp.model.saved import save_model

        save_model(self, path)

    def __repr__(self) -> str:
        names = list(self.activations) or ["linear"]
        names = names[:1] if len(set(names)) == 1 else names
        return (
            f"MLP({'-'.join(map(str, self.layer_sizes))}, {', '.join(names)}, {self.n_params} parameters, "
            f"{self.dtype}, {self.backend.name} on {self.device})"
        )

    def __getstate__(self) -> dict[str, Any]:
        keep = {k: v for k, v in self.__dict__.items() if k not in ("backend", "flat", "_plans")}
        return {
            **keep,
            "backend": None,
            "flat": self.backend.to_numpy(self.flat),
            "_where": self.backend.name,
            "_device": self.device,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        where, device = state.pop("_where"), state.pop("_device")
        self.__dict__.update(state)
        self._plans = {}
        self.backend = get_backend(device if where == "cuda" else where)
        self.flat = self.backend.asarray(self.flat)


def check_answers(z: Any) -> None:
    """ValueError if outputs from which classes are to be read are NaN; those on a device are not looked at,
    because that would mean to wait for it."""
    if isinstance(z, np.ndarray) and np.isnan(z).any():
        row = int(np.argwhere(np.isnan(z))[0][0])
        raise ValueError(
            f"the network's output is NaN (row {row}), so there is no class to answer: its parameters are "
            "not finite, as after a training that diverged, or its sums overflow. Train again, or load a "
            "good model"
        )


def flatten(
    layers: Sequence[Layer], pairs: Sequence[tuple[Any, Any]], flat_size: int, dtype: np.dtype
) -> np.ndarray:
    """A flat host buffer of [(W (n_in, n_out), b (n_out,)), ...]; ValueError if a shape differs."""
    host = np.zeros(flat_size, dtype)
    if len(pairs) != len(layers):
        raise ValueError(f"{len(pairs)} layers of parameters were given, the network has {len(layers)}")
    for n, (layer, (w, b)) in enumerate(zip(layers, pairs, strict=True)):
        if np.shape(w) != (layer.n_in, layer.n_out) or np.shape(b) != (layer.n_out,):
            raise ValueError(
                f"layer {n}: weights {np.shape(w)} and biases {np.shape(b)} were given, expected "
                f"{(layer.n_in, layer.n_out)} and {(layer.n_out,)}"
            )
        matrix = layer.matrix(host)
        matrix[:-1], matrix[-1] = w, b
    return host


def unflatten(layers: Sequence[Layer], flat: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Copies [(W, b), ...] of a flat host buffer (parameters or gradients)."""
    return [(m[:-1].copy(), m[-1].copy()) for m in (layer.matrix(flat) for layer in layers)]


def _check_sizes(sizes: Sequence[int]) -> list[int]:
    try:
        checked = [int(n) for n in sizes]
        good = all(n == m for n, m in zip(checked, sizes, strict=True))
    except (TypeError, ValueError, OverflowError):
        good, checked = False, []
    if not good or len(checked) < 2 or min(checked) < 1:
        raise ValueError(
            f"layer_sizes={sizes!r}; expected at least two positive integers: inputs, [hidden...], outputs"
        )
    return checked


def _per_layer(name: str, value: Any, hidden: int) -> list[Any]:
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return [value] * hidden
    if len(value) != hidden:
        raise ValueError(f"{name}={value!r} has {len(value)} entries, the network has {hidden} hidden layers")
    return list(value)


def _check_rate(p: Any) -> float:
    if not isinstance(p, (int, float, np.floating)) or not 0 <= p < 1:
        raise ValueError(f"dropout={p!r}; expected a probability >= 0 and < 1")
    return float(p)


def _check_seed(seed: Any) -> int:
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed!r}; expected an integer >= 0 and < 2^63")
    return int(seed)
