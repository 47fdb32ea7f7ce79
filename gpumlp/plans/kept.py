"""`Kept`: forward passes whose activations stay, and the way back through them: for training loops of one's
own, with `MLP.forward(keep=True)` and `MLP.backward`."""

from __future__ import annotations

from collections import OrderedDict
from operator import is_
from typing import Any, cast

import numpy as np

from gpumlp.backends.arrays import is_cuda
from gpumlp.backends.base import Backend, Plan, Steps
from gpumlp.backends.operations import Gemm, Launch, Op
from gpumlp.kernels.activations import forward_kernel
from gpumlp.kernels.random import step_parts
from gpumlp.kernels.rows import STORE_STEP
from gpumlp.network import Network, pad
from gpumlp.plans.operations import gather
from gpumlp.plans.workspace import Workspace
from gpumlp.rows import RowSource, check_features, dropout_key
from gpumlp.rows.arrays import read_array

__all__ = ["GradPairs", "Grads", "Kept"]

_SIZES = 4  # so many numbers of rows have buffers and plans at a time


class Parts:
    """Gradients of a network's parameters as parts of one buffer."""

    weights: list[Any]
    biases: list[Any]
    flat: Any
    embedding: dict[str, Any]
    _network: Network

    def whole(self, params: Any, by_element: bool) -> tuple[Any, Any]:
        """(params, gradients) as `Optimizer.update` does them in one go: both flat buffers, if `params` are
        ``[*model.weights, *model.biases]``, that is all of them, and only the element counts."""
        network = self._network
        own = (*network.weights, *network.biases)
        given = params if isinstance(params, (list, tuple)) else ()
        if len(given) != len(own) or not all(map(is_, given, own)):
            return params, list(cast(Any, self))
        if by_element and not network.embedded:
            return network.flat, self.flat
        return params, [*self.weights, *self.biases]


class Grads(Parts, tuple):
    """What `MLP.backward` gives: the gradients of all weights, then of all biases, as ``[*model.weights,
    *model.biases]`` has the parameters.

    All arrays are views of buffers of the model, which its next `backward` writes again.

    Attributes
    ----------
    weights, biases : list of arrays (n_in, n_out) and (n_out,)
        As `MLP.weights` and `MLP.biases`.
    flat : array (flat_size,)
        All of them, and those of the embedding, as `model.flat` has the parameters.
    embedding : dict of arrays
        As `MLP.embedding_parameters`.
    """

    _inputs: Any

    def __new__(cls, network: Network, flat: Any, inputs: Any = None) -> Grads:
        """Views of `flat`, which is laid out as the network's parameters."""
        matrices = [layer.matrix(flat) for layer in network.layers]
        weights, biases = [m[:-1] for m in matrices], [m[-1] for m in matrices]
        self = super().__new__(cls, (*weights, *biases))
        self.weights, self.biases, self.flat, self._inputs = weights, biases, flat, inputs
        self.embedding = network.embedded.views(flat) if network.embedded else {}
        self._network = network
        return self

    @property
    def inputs(self) -> Any:
        """Gradient with respect to the rows of `forward`, (n_rows, n_inputs); only if it was asked for."""
        if self._inputs is None:
            raise ValueError("the gradient of the inputs was not asked for: model.backward(dY, inputs=True)")
        return self._inputs

    def __reduce__(self) -> tuple:
        return tuple, (tuple(self),)  # a copy belongs to no network


class GradPairs(Parts, list):
    """What `Trainer.loss_and_grads` gives: a list [(dW, db), ...], with an embedding followed by a dict, and
    the attributes of `Grads`."""

    def __init__(self, network: Network, flat: Any) -> None:
        """On the host copies of the parts of `flat`, on a device views."""
        if isinstance(flat, np.ndarray):
            super().__init__(network.unflattened(flat))
        else:
            parts = Grads(network, flat)
            super().__init__(zip(parts.weights, parts.biases, strict=True))
            self.extend([parts.embedding] if network.embedded else [])
        self.weights, self.biases = ([pair[n] for pair in self[: len(network.layers)]] for n in (0, 1))
        self.embedding = self[-1] if network.embedded else {}
        self.flat, self._network = flat, network

    def __reduce__(self) -> tuple:
        return list, (list(self),)


class Kept:
    """The kept passes of a network whose parameters, activations and dropout rates stay where they are.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        network.check()
        self.network, self._made_for = network, self._need(network)
        self.flat = network.flat
        self.grads = network.backend.zeros(network.flat_size, network.dtype)
        self._passes: OrderedDict[tuple[int, bool], KeptPass] = OrderedDict()
        self.last: KeptPass | None = None

    @staticmethod
    def _need(network: Network) -> tuple:
        return tuple(network.activations), tuple(network.dropouts), network.seed

    def serves(self, network: Network) -> bool:
        """Whether these are still the passes of `network`."""
        network.check()
        return network.flat is self.flat and self._need(network) == self._made_for

    def forward(self, X: Any, t: int | None) -> Any:
        """The network's output, with the dropout masks of step `t` (None: without dropout): a view of a
        buffer if `X` is where the network is, else a copy on the host."""
        network = self.network
        if isinstance(X, RowSource):
            raise TypeError(f"X is a {type(X).__name__}; keep=True needs one batch of it, an array of rows")
        # a look at values on a device would wait for it
        X = check_features(
            X,
            network.layer_sizes[0],
            network.backend,
            network.dtype,
            categories=network.categories,
            look=not is_cuda(X),
        )
        if not X.shape[0]:
            raise ValueError("X has no rows; expected at least one")
        drops = t is not None and any(network.dropouts)
        key = X.shape[0], drops
        found = self._passes.pop(key, None) or KeptPass(network, X.shape[0], drops, self.grads)
        self._passes[key] = self.last = found
        if len(self._passes) > _SIZES:
            self._passes.popitem(last=False)
        there = network.backend.device == "cpu" or is_cuda(X)
        Y = found.forward(X if there else network.backend.asarray(X), t)
        return Y if there else network.backend.to_numpy(Y)

    def backward(self, dY: Any, inputs: bool) -> Grads:
        """See `MLP.backward`; after a `forward`."""
        assert self.last is not None
        network, rows = self.network, self.last.rows
        dY, n_out = read_array("dY", dY), network.layer_sizes[-1]
        if is_cuda(dY) and network.backend.name != "cuda":
            raise TypeError(f"dY is on a CUDA device but the model is on {network.device}; use dY.get()")
        if n_out == 1 and dY.shape == (rows,):
            dY = dY.reshape(rows, 1)
        if dY.shape != (rows, n_out):
            raise ValueError(
                f"dY has shape {tuple(dY.shape)}; expected that of the last output that was kept, "
                f"({rows}, {n_out})"
            )
        if inputs and network.embedded:
            raise ValueError(
                "inputs=True: this network embeds its inputs, so there is no gradient with respect to them; "
                "the embedding's own parameters have theirs in grads.embedding"
            )
        return self.last.backward(_plain(dY, network.backend, network.dtype), inputs)


class KeptPass:
    """Buffers and plans for a number of rows.

    Parameters
    ----------
    network : Network
    rows : int
    drops : bool
        There is dropout.
    grads : array (flat_size,)
        Receives the gradient.
    """

    def __init__(self, network: Network, rows: int, drops: bool, grads: Any) -> None:
        self.network, self.rows, self._grads = network, rows, grads
        self.space = Workspace(network, rows, training=True)
        self._key = dropout_key(network.seed) if drops else None
        columns = ("t_low", "t_high") if drops else ()
        self._steps = Steps(network.backend, columns, network.dtype, n_rows=rows)
        self._steps.order[:] = np.arange(rows)
        self._steps.send()
        self._forward = network.backend.record(self.space.forward(rows, self._key), self._steps)
        self._ways: dict[bool, tuple[Plan, Grads]] = {}

    @property
    def hidden(self) -> list[Any]:
        """Views of the outputs of the hidden layers, (rows, n)."""
        return list(self.space.a[1:])

    def forward(self, X: Any, t: int | None) -> Any:
        """A view of the output for the rows of `X`, checked ones on the network's device."""
        backend = self.network.backend
        if backend.device == "cpu" and not self.space.embedded:
            backend.copy(self.space.a[0], X)
        else:
            backend.at_once(gather(self.space, self.rows, X, self._steps.index, 0))
        if self._key is not None and t is not None:
            low, high = step_parts(t)
            table = {"table": self._steps.table}
            backend.at_once(Launch(STORE_STEP, table, {"low": low, "high": high}, 1, 2))
        with backend.range("gpumlp:forward"):
            self._forward.run()
        return self.space.z[-1]

    def backward(self, dY: Any, inputs: bool) -> Grads:
        """From the gradient of the output, on the device, to all others."""
        backend, d = self.network.backend, self.space.d[-1]
        plan, grads = self._ways.get(inputs) or self._back(inputs)
        if backend.device == "cpu":
            backend.copy(d, dY)
        else:  # by a kernel, whatever the layout
            backend.at_once(Launch(forward_kernel("identity"), {"z": dY, "a": d}, {}, *d.shape))
        with backend.range("gpumlp:backward"):
            plan.run()
        return grads

    def _back(self, inputs: bool) -> tuple[Plan, Grads]:
        network, dX = self.network, None
        ops: list[Op] = self.space.backward(self.rows, self._grads, self._key)
        if inputs:
            layer = network.layers[0]
            buffer = network.backend.zeros((self.rows, pad(layer.n_in)), network.dtype)
            dX = buffer[:, : layer.n_in]
            ops.append(Gemm(self.space.d[0], layer.matrix(network.flat)[:-1], dX, trans_b=True))
        plan = network.backend.record(ops, self._steps)
        self._ways[inputs] = found = plan, Grads(network, self._grads, dX)
        return found


def _plain(array: Any, backend: Backend, dtype: np.dtype) -> Any:
    """A 2-D array as kernels read it, on the device; a view with padded rows stays as it is."""
    here = isinstance(array, np.ndarray) if backend.xp is np else isinstance(array, backend.xp.ndarray)
    if not here or array.dtype != dtype or array.strides[1] != dtype.itemsize:
        return backend.asarray(array, dtype)
    whole = getattr(array.flags, "aligned", True) and array.strides[0] % dtype.itemsize == 0
    return array if whole else backend.asarray(array.copy())
