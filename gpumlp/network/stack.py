"""`Stack`: many networks as one, for plans that run all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.network.network import Network

__all__ = ["Stack"]


class Stack(Network):
    """Networks on one device, of one depth, dtype, embedding and activations, with one parameter buffer.

    Narrower hidden layers are padded with units whose parameters are 0.  With activations that are 0 at 0
    these units give 0 and get no gradient, so their parameters stay 0 under every update rule.  The bins of
    piecewise embeddings are each network's own; where it has fewer of them the others are always 0.

    Parameters
    ----------
    networks : sequence of Network
        Their own buffers are not touched; see `put` and `get`.

    Attributes
    ----------
    members : int
        How many there are.
    flat : array (members, flat_size)
    layer_sizes : list of int
        Those of the widest network of each layer.
    dropouts : list of list of float
        For each hidden layer the rates of all members.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        first = networks[0]
        self.networks, self.members = list(networks), len(networks)
        self.backend, self.dtype, self.activations = first.backend, first.dtype, list(first.activations)
        self.layer_sizes = [max(sizes) for sizes in zip(*(n.layer_sizes for n in networks), strict=True)]
        embeddings = [n.embedding for n in networks if n.embedding]
        self.lay_out(max(embeddings, key=lambda e: e.inner(), default=None))
        self.dropouts = [list(rates) for rates in zip(*(n.dropouts for n in networks), strict=True)]
        self.flat = self.backend.zeros((self.members, self.flat_size), self.dtype)

    @property
    def bins(self) -> np.ndarray:
        """(members, 4, numbers, per): see `Embedded.bins`."""
        assert self.embedded is not None
        return np.stack([self.embedded.bins(network.embedding) for network in self.networks])

    def _pairs(self, member: int, own: Any, stacked: Any) -> list[tuple[Any, Any]]:
        """Views of what is the same in a buffer laid out as the member's and in one (members, flat_size)."""
        network = self.networks[member]
        narrow, wide = network.embedded, self.embedded
        same = narrow is None or wide is None or narrow.inner == wide.inner
        if same and network.layer_sizes == self.layer_sizes:
            return [(own, stacked[member])]
        pairs = []
        for layer, wider in zip(network.layers, self.layers, strict=True):
            mine, place = layer.matrix(own), wider.matrix(stacked[member])
            pairs.append((mine[:-1], place[: layer.n_in, : layer.n_out]))
            pairs.append((mine[-1], place[-1, : layer.n_out]))
        if narrow and wide and same:
            pairs.append((own[narrow.start : narrow.stop], stacked[member][wide.start : wide.stop]))
        elif narrow and wide:
            views, places = narrow.views(own), wide.views(stacked[member])
            places["weight"] = places["weight"][:, : narrow.inner]
            pairs += [(view, places[name]) for name, view in views.items()]
        return pairs

    def put(self, member: int, own: Any, stacked: Any) -> None:
        """Copy a member's buffer (its parameters, or state laid out in the same way) into a stacked one."""
        for mine, place in self._pairs(member, own, stacked):
            self.backend.copy(place, mine)

    def get(self, member: int, own: Any, stacked: Any) -> None:
        """Copy the other way."""
        for mine, place in self._pairs(member, own, stacked):
            self.backend.copy(mine, place)
