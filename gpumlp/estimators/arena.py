"""The parameters of a fitted estimator, and the network that answers with them.

`coefs_` and `intercepts_` are views of one buffer on the host, laid out as a network's: on the CPU a network
can compute with it as it is, so predictions copy nothing and changes in place count.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gpumlp.locks import free_after_fork
from gpumlp.model import MLP
from gpumlp.network import flatten, layout

__all__ = ["Answers", "Arena", "sizes_of"]

#: bytes that are copied before a forward pass is recorded for a buffer of its own: recording takes as long
_COPIED = 4 << 20


def sizes_of(coefs: Sequence[Any], intercepts: Sequence[Any]) -> list[int]:
    """Layer sizes of a network with these parameters."""
    return [np.shape(coefs[0])[0], *(len(b) for b in intercepts)]


class Arena:
    """Parameters in one buffer on the host; `coefs` and `intercepts` are its views."""

    def __init__(self, layers: Sequence[Any], flat: np.ndarray) -> None:
        self.flat = flat
        matrices = [layer.matrix(flat) for layer in layers]
        self.coefs = [m[:-1] for m in matrices]
        self.intercepts = [m[-1] for m in matrices]

    @classmethod
    def copy_of(cls, coefs: Sequence[Any], intercepts: Sequence[Any]) -> Arena:
        """Copies of arrays; ValueError if they cannot be the parameters of a network."""
        sizes = sizes_of(coefs, intercepts)
        if len(coefs) != len(intercepts) or any(
            np.shape(w) != pair for w, pair in zip(coefs, pairwise(sizes), strict=True)
        ):
            raise ValueError("coefs_ and intercepts_ do not belong together")
        layers, size = layout(sizes)
        pairs = list(zip(coefs, intercepts, strict=True))
        return cls(layers, flatten(layers, pairs, size, coefs[0].dtype))

    def holds(self, coefs: Sequence[Any], intercepts: Sequence[Any]) -> bool:
        """Whether these arrays are its views."""
        return (
            len(coefs) == len(self.coefs)
            and len(intercepts) == len(self.intercepts)
            and all(a is b for a, b in zip(coefs, self.coefs, strict=True))
            and all(a is b for a, b in zip(intercepts, self.intercepts, strict=True))
        )


class Answers:
    """What predicts: the network, and the parameters where they are an `Arena`.

    Calls from several threads use the network's buffers one after the other, holding `lock`.
    """

    def __init__(self, arena: Arena | None = None) -> None:
        self.arena = arena
        self.key: tuple = ()  # what `model` was made from
        self.model: MLP | None = None
        self._bound: MLP | None = None  # the same network, in the buffer of an arena
        self._seen: Arena | None = None  # the arena last copied from, and how many bytes
        self._copied = 0
        self.lock = threading.RLock()
        free_after_fork(self, "lock")

    def use(self, model: MLP | None, key: tuple) -> None:
        """Predict with another network; None: with one that is still to be made."""
        self.model, self.key, self._bound, self._seen = model, key, None, None

    def with_parameters(self, coefs: Sequence[Any], intercepts: Sequence[Any]) -> MLP:
        """The network with these parameters."""
        model, arena = self.model, self.arena
        assert model is not None
        if arena is None or model.backend.device != "cpu" or not arena.holds(coefs, intercepts):
            model.set_parameters(list(zip(coefs, intercepts, strict=True)))
            return model
        if self._bound is not None and self._bound.flat is arena.flat:
            return self._bound
        if self._seen is not arena:
            self._seen, self._copied = arena, 0
        self._copied += arena.flat.nbytes
        if self._copied > _COPIED:
            self._bound = copy.copy(model)
            self._bound.flat = arena.flat
            return self._bound
        model.backend.copy(model.flat, arena.flat)
        return model
