"""Launches for a network, or for all networks of a `Stack`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from gpumlp.backends.operations import Launch
from gpumlp.kernels.kernel import Kernel
from gpumlp.network import Network

__all__ = ["launch", "per_member"]


def launch(
    network: Network,
    kernel: Kernel,
    arrays: dict[str, Any],
    scalars: dict[str, Any],
    rows: int,
    cols: int,
    *,
    shared: Collection[str] = (),
    **more: Any,
) -> Launch:
    """A `Launch` for all members of `network`; `shared` are arrays that are the same for all of them."""
    if network.members is not None:
        more.update(members=network.members, shared=[name for name in shared if name in arrays])
    return Launch(kernel, arrays, scalars, rows, cols, **more)


def per_member(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By-value arguments of each member as sequences."""
    return {name: [value[name] for value in values] for name in values[0]}
