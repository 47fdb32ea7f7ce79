"""The networks of an estimator: one that is trained, and one that predicts."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gpumlp.backends import Backend, backend_of, get_backend
from gpumlp.backends.arrays import is_cuda
from gpumlp.estimators.arena import Answers, Arena, sizes_of
from gpumlp.estimators.inputs import Samples, check_X
from gpumlp.estimators.names import name_of_activation
from gpumlp.estimators.shared import Shared
from gpumlp.estimators.stochastic import Training
from gpumlp.model import MLP
from gpumlp.plans import FORWARD_ROWS

__all__ = ["Networks"]


class Networks:
    """A part of `BaseMLP`: where the parameters go to be trained and to predict, and come from.

    Attributes
    ----------
    coefs_, intercepts_ : list of arrays
        The parameters, on the host.
    """

    coefs_: list[Any]
    intercepts_: list[Any]
    activation: Any
    device: str
    dropout: Any
    out_activation_: str
    _activation: str
    _held: Answers
    _training: Training

    # ---- training -----------------------------------------------
    def _key(self, activation: str) -> tuple:
        """What a network is made from; another one is needed where it differs."""
        shapes = [np.shape(w) for w in self.coefs_]
        return self.device, activation, self._parameter_dtype(), shapes

    def _is_of(self, model: MLP | None, made: tuple, key: tuple, backend: Backend | None) -> bool:
        """Whether `model`, made from `made`, is what `key` and the place of X ask for."""
        if model is None or made != key:
            return False
        return backend is None or self.device != "auto" or model.backend is backend

    def _new_network(self, key: tuple, backend: Backend | None, dropout: Any) -> MLP:
        device, activation, dtype = key[:3]
        sizes = sizes_of(self.coefs_, self.intercepts_)
        return MLP(
            sizes,
            "sigmoid" if activation == "logistic" else activation,
            dropout=dropout if len(sizes) > 2 else 0.0,
            init=0.0,
            dtype=dtype,
            device=backend if backend is not None and device == "auto" else get_backend(device),
        )

    def _parameter_dtype(self) -> np.dtype:
        dtype = np.asarray(self.coefs_[0]).dtype
        return dtype if dtype == np.float32 else np.dtype(np.float64)

    def _trained_network(self, rows: Samples, val: Samples | None, shared: Shared | None) -> Training:
        """The network to train, on its device, with the parameters that `coefs_` and `intercepts_` hold."""
        places = [backend_of(r.X) for r in (rows, val) if r is not None and is_cuda(r.X)]
        backend = places[0] if places else None
        key = (*self._key(name_of_activation(self.activation)), repr(self.dropout))

        def fits(training: Training) -> bool:
            return self._is_of(training.model, training.key, key, backend)

        training: Training | None = self.__dict__.get("_training")
        if shared is not None:
            training = shared.training(fits)
        if training is None or not fits(training):
            training = Training(self._new_network(key, backend, self.dropout), key)
        if backend is not None and training.model.backend.name != "cuda":
            raise TypeError(
                f"X is on a CUDA device but the model is on {training.model.device} "
                f"(device={self.device!r}); use device='auto' or 'cuda', or pass X.get()"
            )
        training.model.set_parameters(list(zip(self.coefs_, self.intercepts_, strict=True)))
        training.waits = shared is not None and shared.together and training.model.backend.name == "cuda"
        self._training = training
        return training

    def _read_parameters(self, model: MLP) -> None:
        """Set `coefs_` and `intercepts_` to copies of the network's parameters."""
        self._take(Arena(model.layers, model.backend.to_numpy(model.flat)))

    def _take(self, arena: Arena) -> None:
        held = self._answers()
        with held.lock:
            held.arena = arena
            self.coefs_, self.intercepts_ = list(arena.coefs), list(arena.intercepts)

    # ---- with other estimators -----------------------------------------------
    def _share(self, shared: Shared | None) -> None:
        """At the end of a fit, leave what others can use."""
        if shared is not None:
            shared.give(self.__dict__.pop("_training"))
            self._answer_with(shared)

    def _show(self, shared: Shared) -> None:
        """Between two pieces of a fit, be able to predict as if it ended there."""
        assert self._training.running is not None
        self._training.running.show()
        self._answer_with(shared)

    def _answer_with(self, shared: Shared) -> None:
        """Predict with a network that is shared with other estimators."""
        key = self._key(self._activation)
        make = functools.partial(self._new_network, key, None, 0.0)
        self._answers().use(shared.network(repr(key), make), key)

    # ---- use -----------------------------------------------
    def _output(self, X: Any, *links: str) -> Any:
        """The network's output (n_samples, n_outputs); CuPy if `X` is on a device.

        What is applied follows `out_activation_`: exp, sorted, else the last of `links` for "logistic", else
        the first.
        """
        if "coefs_" not in vars(self):
            check_is_fitted(self)
        link = {"exp": "exp", "sorted": "sorted", "logistic": links[-1]}.get(self.out_activation_, links[0])
        X = check_X(self, X)
        held = self._answers()
        with held.lock:
            self._choose(held, backend_of(X) if is_cuda(X) else None)
            model = held.with_parameters(self.coefs_, self.intercepts_)
            if not hasattr(X, "toarray"):
                return model.outputs(X, link)
            X = X.tocsr()
            parts = [
                X[start : start + FORWARD_ROWS].toarray() for start in range(0, X.shape[0], FORWARD_ROWS)
            ]
            return np.concatenate([model.outputs(part, link) for part in parts])

    def _answer_alone(self) -> None:
        """Predict no longer with a network that is shared with other estimators."""
        if "_held" in vars(self):
            self._held.use(None, ())

    def _answers(self) -> Answers:
        if "_held" not in vars(self):  # `coefs_` was set by hand
            self._held = Answers()
        return self._held

    def _choose(self, held: Answers, backend: Backend | None) -> None:
        """Make sure that predictions come from the network as it was fitted, on the device asked for now."""
        key = self._key(name_of_activation(getattr(self, "_activation", self.activation)))
        if not self._is_of(held.model, held.key, key, backend):
            held.use(self._new_network(key, backend, 0.0), key)
