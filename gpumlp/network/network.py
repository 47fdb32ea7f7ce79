"""`Network`: what is trained, without what it is used for: sizes, activations, dropout, parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from gpumlp import checks
from gpumlp.activations import Activation, activation_name, carried_activations, take_activations
from gpumlp.backends import Backend, get_backend
from gpumlp.network.embedded import Embedded
from gpumlp.network.embedding import Embedding
from gpumlp.network.initial import initial_parameters
from gpumlp.network.layers import flatten, layout, unflatten

__all__ = ["Network"]


class Network:
    """Sizes, activations and parameters of a multilayer perceptron, on one device.

    Parameters are those of `gpumlp.MLP`, which adds what a network is used for.

    Attributes
    ----------
    backend : Backend
        The executor of the device where the parameters are.
    activations, dropouts : list of str, list of float
        One entry per hidden layer; changes count from the next use on.
    flat : array (flat_size,)
        All parameters; see `gpumlp.network.layers`.  `to` and unpickling make a new one.
    layers : list of Layer
        Where each layer lies in `flat`.
    embedded : Embedded or None
        What the inputs become before the first layer, and where its parameters lie in `flat`.
    members : int or None
        See `Stack`.
    """

    members: int | None = None
    embedded: Embedded | None = None
    _views: tuple[Any, Views, Views] | None = None

    def __init__(
        self,
        layer_sizes: Sequence[int],
        activation: str | Activation | Sequence[str | Activation] = "relu",
        *,
        dropout: float | Sequence[float] = 0.0,
        init: str | float = "auto",
        seed: int = 0,
        dtype: Any = "float32",
        device: str | Backend = "auto",
        embedding: Embedding | None = None,
    ) -> None:
        self.layer_sizes = _check_sizes(layer_sizes)
        self.activations = cast(Any, activation)
        self.dropouts: Any = dropout
        if isinstance(activation, (str, type, Activation)):
            activation_name(activation)  # even if there is no hidden layer to apply it to
        if not hasattr(dropout, "__len__"):
            _check_rate(dropout)  # even if there is no hidden layer to apply it to
        self.check()
        self.seed = checks.seed("seed", seed)
        self.init = init
        self.dtype = _check_dtype(dtype)
        self.lay_out(_check_embedding(embedding))
        self.backend = get_backend(device)
        self.flat = self.backend.zeros(self.flat_size, self.dtype)
        rng = np.random.default_rng([self.seed, 0])
        parameters: list[Any] = initial_parameters(self.read_sizes, self.activations, init, rng)
        self.set_parameters(parameters + ([self.embedded.initial(rng)] if self.embedded else []))

    def lay_out(self, embedding: Embedding | None) -> None:
        """Set `layers`, `embedded` and `flat_size`."""
        n_inputs, *others = self.layer_sizes
        first = embedding.width(n_inputs) if embedding else n_inputs
        self.layers, self.flat_size = layout([first, *others])
        self.embedded = Embedded(embedding, n_inputs, self.flat_size) if embedding else None
        self.flat_size = self.embedded.stop if self.embedded else self.flat_size

    def check(self) -> None:
        """Make `activations` and `dropouts`, which may be changed at any time, lists with an entry per hidden
        layer; ValueError if that is not possible."""
        hidden = len(self.layer_sizes) - 2
        names = [activation_name(each) for each in _per_layer("activation", self.activations, hidden)]
        self.dropouts = [_check_rate(p) for p in _per_layer("dropout", self.dropouts, hidden)]
        self.activations = names

    @property
    def lead(self) -> tuple[int, ...]:
        """The axis of members in shapes of arrays: empty, but for a `Stack`."""
        return () if self.members is None else (self.members,)

    @property
    def device(self) -> str:
        """ "cpu" or "cuda:<number>"."""
        return self.backend.device

    @property
    def dropout(self) -> float | list[float]:
        """One rate if all layers have the same, else one per hidden layer."""
        return self.dropouts[0] if len(set(self.dropouts)) == 1 else (self.dropouts or 0.0)

    @property
    def weights(self) -> Views:
        """Views (n_in, n_out) of the parameters, one per layer; assigning to one writes into the network."""
        return self._parts()[1]

    @property
    def biases(self) -> Views:
        """Views (n_out,) of the parameters, one per layer; assigning to one writes into the network."""
        return self._parts()[2]

    def _parts(self) -> tuple[Any, Views, Views]:
        """The flat buffer, and the same views of it every time: `Optimizer.update` knows arrays again."""
        if self._views is None or self._views[0] is not self.flat:
            matrices = [layer.matrix(self.flat) for layer in self.layers]
            weights = Views([m[:-1] for m in matrices], "weights", self.backend)
            self._views = self.flat, weights, Views([m[-1] for m in matrices], "biases", self.backend)
        return self._views

    @property
    def read_sizes(self) -> list[int]:
        """`layer_sizes`, but first how many numbers the first layer reads."""
        return [self.layers[0].n_in, *self.layer_sizes[1:]]

    @property
    def embedding(self) -> Embedding | None:
        """What the inputs become before the first layer."""
        return self.embedded.embedding if self.embedded else None

    @property
    def categories(self) -> dict[int, int]:
        """Number of categories of each column that holds codes."""
        return dict(self.embedding.categories) if self.embedding else {}

    @property
    def embedding_parameters(self) -> dict[str, Any]:
        """Views of the embedding's parameters, by name; see `Embedding`."""
        return self.embedded.views(self.flat) if self.embedded else {}

    @property
    def bins(self) -> np.ndarray:
        """See `Embedded.bins`; for a `Stack`, with the axis of members."""
        assert self.embedded is not None
        return self.embedded.bins()

    @property
    def n_inputs(self) -> int:
        """Width of the input layer."""
        return self.layer_sizes[0]

    @property
    def n_outputs(self) -> int:
        """Width of the output layer."""
        return self.layer_sizes[-1]

    @property
    def n_params(self) -> int:
        """Number of parameters (without padding)."""
        layers = sum((layer.n_in + 1) * layer.n_out for layer in self.layers)
        shapes = self.embedding.shapes(self.layer_sizes[0]) if self.embedding else {}
        return layers + sum(map(math.prod, shapes.values()))

    @property
    def widths(self) -> list[int]:
        """How many numbers of each row a forward pass keeps, by buffer."""
        own = self.embedded
        return self.layer_sizes + ([own.width, len(own.numbers) * own.per] if own else [])

    @property
    def segments(self) -> list[tuple[int, int, float]]:
        """Ranges of the flat buffer with decay 1 (weights) and 0 (biases and padding behind them)."""
        ranges = []
        end = self.embedded.start if self.embedded else self.flat_size
        for layer, stop in zip(self.layers, [*(n.offset for n in self.layers[1:]), end], strict=True):
            bias = layer.offset + layer.n_in * layer.ld
            ranges += [(layer.offset, bias, 1.0), (bias, stop, 0.0)]
        return ranges + (self.embedded.segments if self.embedded else [])

    def get_parameters(self) -> list[Any]:
        """Copies [(W, b), ...] on the host; with an embedding, a dict of its parameters follows."""
        return self.unflattened(self.backend.to_numpy(self.flat))

    def set_parameters(self, parameters: Sequence[Any]) -> None:
        """Take over [(W (n_in, n_out), b (n_out,)), ...] from the host, and with an embedding a dict of its
        parameters; ValueError if a shape differs."""
        self.backend.copy(self.flat, self.flattened(parameters))

    def flattened(self, parameters: Sequence[Any]) -> np.ndarray:
        """What `get_parameters` gives, as a flat buffer on the host; ValueError if a shape differs."""
        pairs = list(parameters)
        own = pairs.pop() if self.embedded and len(pairs) == len(self.layers) + 1 else None
        host = flatten(self.layers, pairs, self.flat_size, self.dtype)
        if self.embedded:
            self.embedded.fill(host, own)
        return host

    def unflattened(self, host: np.ndarray) -> list[Any]:
        """The same for a flat buffer on the host, of parameters or what is laid out like them; copies."""
        pairs: list[Any] = unflatten(self.layers, host)
        if self.embedded:
            pairs.append({name: view.copy() for name, view in self.embedded.views(host).items()})
        return pairs

    def to(self, device: str | Backend) -> Any:
        """Move the parameters to another device, in place; returns the network."""
        backend = get_backend(device)
        if backend is not self.backend:
            self.flat = _placed(backend, self.backend.to_numpy(self.flat))
            self.backend = backend
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "backend": self.backend.wanted,
            "flat": self.backend.to_numpy(self.flat),
            "_views": None,
            "own_activations": carried_activations(self.activations),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        take_activations(state.pop("own_activations", []))  # pickles of earlier versions have none
        self.__dict__.update(state)
        self.backend = get_backend(state["backend"])
        self.flat = _placed(self.backend, state["flat"])


class Views(tuple):
    """Views of a network's parameters, one per layer.  ``views[n] = values`` writes into the network."""

    def __new__(cls, views: Sequence[Any], name: str, backend: Backend) -> Views:
        """See `Network.weights`."""
        self = super().__new__(cls, views)
        self._name, self._backend = name, backend
        return self

    _name: str
    _backend: Backend

    def __reduce__(self) -> tuple:
        return list, (list(self),)  # a copy belongs to no network

    def __setitem__(self, number: int, values: Any) -> None:
        view = self[number]
        if np.shape(values) != view.shape:
            raise ValueError(
                f"{self._name}[{number}] has shape {view.shape}; an array of shape {np.shape(values)} was "
                "assigned to it"
            )
        values = values if hasattr(values, "dtype") else np.asarray(values, view.dtype)
        with self._backend.active():
            self._backend.copy(view, values)


def _placed(backend: Backend, host: np.ndarray) -> Any:
    """A copy of `host` on the device of `backend`: aligned, and writable also where `host` is not."""
    array = backend.empty(host.shape, host.dtype)
    backend.copy(array, host)
    return array


def _check_embedding(embedding: Any) -> Any:
    if embedding is not None and not isinstance(embedding, Embedding):
        raise TypeError(f"embedding={embedding!r}; expected a gpumlp.Embedding or None")
    return embedding


def _check_dtype(dtype: Any) -> np.dtype:
    try:
        checked = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"dtype={dtype!r}; expected 'float32' or 'float64'") from None
    if dtype is None or checked not in (np.float32, np.float64):
        raise ValueError(f"dtype={dtype if dtype is None else str(dtype)!r}; expected 'float32' or 'float64'")
    return checked


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
    return float(checks.number("dropout", p, 0, 1, expected="a probability >= 0 and < 1"))
