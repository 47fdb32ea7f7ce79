"""`MLP`: a network and what it is used for: forward passes, predictions, files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.activations import Activation
from gpumlp.backends import Backend
from gpumlp.backends.base import on_device
from gpumlp.network import Embedding, Network
from gpumlp.plans import OUTPUTS, Forward, Grads, Kept
from gpumlp.rows.arrays import array_module

__all__ = ["MLP", "check_answers"]


def _check_output(name: Any) -> str:
    if not isinstance(name, str) or name not in OUTPUTS:
        raise ValueError(f"output={name!r}; expected one of {', '.join(OUTPUTS)}")
    return name


class MLP(Network):
    """A multilayer perceptron.

    Parameters
    ----------
    layer_sizes : sequence of int
        Inputs, hidden layers, outputs: ``[784, 256, 10]``.  Two numbers make a linear model.
    activation : str, Activation, or sequence of them
        One for all hidden layers, or one per hidden layer: a name of `gpumlp.activations.ACTIVATIONS`, or an
        activation of one's own, which is registered (see `gpumlp.register`).  The output layer is linear: the
        loss applies softmax, sigmoid or exp.
    dropout : float or sequence of float
        Probability, in [0, 1), that a hidden unit's output is set to 0 in training; one per hidden layer or
        one for all.
    init : str or float
        See `gpumlp.network.INITS`; a number is the standard deviation of normal weights.
    seed : int
        Seed of the initial values, which are the same on every device.
    dtype : str
        "float32" or "float64".
    device : str
        "auto", "cpu", "numpy", "native", "cuda" (or "gpu"), "cuda:1".
    embedding : Embedding, optional
        What the inputs become before the first layer: embedded numbers and categories.

    Attributes
    ----------
    weights, biases : list of arrays
        Views (n_in, n_out) and (n_out,) of the parameters on the model's device; writing to them changes the
        model.
    embedding_parameters : dict of arrays
        The same of the embedding, by name; see `Embedding`.
    n_params : int
        Number of parameters (without padding).
    extra : dict
        Anything that JSON can hold, kept in the model's file: the command line stores names and scaling here.
    dropout_step : int
        Number of the dropout masks of the next ``forward(X, keep=True, training=True)``, which counts it on.
    output : str
        "identity", "softmax", "sigmoid", "exp" or "sorted" (quantiles): how `predict` reads the network's
        output.  Training with a `Trainer` sets it according to the loss.

    Raises
    ------
    ValueError
        Sizes, names or probabilities that do not define a network.
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

    output = checks.Setting(_check_output)
    dropout_step = checks.Setting(partial(checks.whole, "dropout_step", low=0))

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
        super().__init__(
            layer_sizes,
            activation,
            dropout=dropout,
            init=init,
            seed=seed,
            dtype=dtype,
            device=device,
            embedding=embedding,
        )
        self.output = "identity"
        self.extra: dict[str, Any] = {}
        self._forward: Forward | None = None
        self._kept: Kept | None = None
        self.dropout_step = 0

    # ---- use -----------------------------------------------
    @on_device
    def forward(self, X: Any, *, keep: bool = False, training: bool = False) -> Any:
        """Network output before softmax, sigmoid or exp.

        Parameters
        ----------
        X : array-like (n_rows, n_inputs), or `gpumlp.rows.RowSource`
            NumPy, CuPy, or anything that NumPy can convert.  A source is read piece by piece.
        keep : bool
            Keep what `backward` needs, of this number of rows.  Values of CuPy rows are then not checked, as
            that would mean waiting for the device.
        training : bool
            With dropout; needs `keep`.  The masks are those that a `Trainer` with the model's seed draws in
            step `dropout_step`.

        Returns
        -------
        array (n_rows, n_outputs) of the model's dtype
            CuPy if `X` is CuPy, else NumPy.  With `keep` it is a view of a buffer, which the next kept pass
            of as many rows writes again; you may write to it.

        Examples
        --------
        >>> import numpy as np, gpumlp
        >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
        >>> model, adam = gpumlp.MLP([1, 16, 1], "tanh", device="cpu", dtype="float64"), gpumlp.Adam(lr=0.03)
        >>> for step in range(300):
        ...     Y = model.forward(X, keep=True)
        ...     grads = model.backward((Y - X**2) / len(X))
        ...     adam.update([*model.weights, *model.biases], grads)
        >>> bool(np.abs(model.forward(X) - X**2).max() < 0.1)
        True
        """
        if not checks.flag("keep", keep):
            if checks.flag("training", training):
                raise ValueError("training=True needs keep=True: dropout is for passes that go backward")
            return self.outputs(X, "identity")
        if self._kept is None or not self._kept.serves(self):
            self._kept = Kept(self)
        t = self.dropout_step if checks.flag("training", training) else None
        Y = self._kept.forward(X, t)
        self.dropout_step += bool(training)
        return Y

    @on_device
    def backward(self, dY: Any, *, inputs: bool = False) -> Grads:
        """The product of `dY` with the Jacobian of the last ``forward(X, keep=True)``: if dY is the gradient
        of a loss with respect to its output, that of the loss with respect to all parameters.

        May be called several times for one forward pass.  The parameters must be those of the forward pass.

        Parameters
        ----------
        dY : array (n_rows, n_outputs)
            NumPy or CuPy.
        inputs : bool
            Also with respect to the inputs: `grads.inputs`, for instance to go on in another network.

        Returns
        -------
        Grads
            On the model's device: the gradients of ``[*model.weights, *model.biases]``, in this order, in
            buffers that the next call writes again; with those of an embedding beside them.

        Raises
        ------
        RuntimeError
            No forward pass was kept on the device where the model is now.
        ValueError, TypeError
            `dY` is of another shape, or on another device.
        """
        inputs = checks.flag("inputs", inputs)
        return self._kept_pass().backward(dY, inputs)

    @property
    def hidden(self) -> list[Any]:
        """Outputs (n_rows, n) of the hidden layers in the last ``forward(X, keep=True)``, after activation
        and dropout: views on the model's device, to be read only; the next kept pass of as many rows writes
        them again."""
        last = self._kept_pass().last
        return last.hidden if last else []

    def _kept_pass(self) -> Kept:
        kept = self._kept
        if kept is None or kept.last is None or kept.flat is not self.flat:
            raise RuntimeError(f"no pass was kept on {self.device}; call model.forward(X, keep=True) first")
        return kept

    @on_device
    def predict(self, X: Any) -> Any:
        """The answer: class numbers, int64 (n_rows,) (0/1 of shape (n_rows, n_outputs) for several sigmoid
        outputs), or values, (n_rows,) for one output, else (n_rows, n_outputs).  Parameters as in
        `forward`.

        `output` decides which; training with a `Trainer` sets it according to the loss.  A new network
        returns the values of `forward`.  Making a `Trainer`, or evaluating with one, does not change it."""
        z = self.outputs(X, self.output if self.output in ("exp", "sorted") else "identity")
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
        p = self.outputs(X, self.output)
        if p.shape[1] > 1 or self.output == "softmax":
            return p
        return array_module(p).concatenate([1 - p, p], axis=1)

    @on_device
    def outputs(self, X: Any, link: str) -> Any:
        """As `forward`, with one of the values that `output` may have applied, whatever it is."""
        if self._forward is None or not self._forward.serves(self):
            self._forward = Forward(self)
        return self._forward(X, link)

    def save(self, path: Any) -> None:
        """Write the model to one .npz file, atomically; `gpumlp.load` reads it.  Loading never runs code."""
        from gpumlp.model.saved import save_model

        save_model(self, path)

    def __repr__(self) -> str:
        names = list(self.activations) or ["linear"]
        names = names[:1] if len(set(names)) == 1 else names
        names = [self.embedding.summary(), *names] if self.embedding else names
        return (
            f"MLP({'-'.join(map(str, self.layer_sizes))}, {', '.join(names)}, {self.n_params} parameters, "
            f"{self.dtype}, {self.backend.name} on {self.device})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_forward": None, "_kept": None}


def check_answers(z: Any) -> None:
    """ValueError if outputs from which classes are to be read are NaN; those on a device are not
    checked, because that would mean waiting for it."""
    if isinstance(z, np.ndarray) and np.isnan(z).any():
        row = int(np.argwhere(np.isnan(z))[0][0])
        raise ValueError(
            f"the network's output is NaN (row {row}), so no class can be predicted: its parameters are "
            "not finite, as after a training that diverged, or its sums overflow. Train again, or load a "
            "good model"
        )
