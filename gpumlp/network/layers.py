"""Where the parameters lie: the layout of the one flat buffer that holds all of them.

Layer l maps n_in values to n_out by ``z = x W + b``.  Its block of the flat buffer is a row-major matrix of
n_in + 1 rows (padded to a multiple of 8) and n_out columns (padded to 1, 2, 4 or a multiple of 8): rows
0..n_in-1 are W, row n_in is b.  Activations carry a constant 1 in column n_in, so bias addition and bias
gradient are part of the gemms.  Padding is zero and stays zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Layer", "flatten", "layout", "pad", "unflatten"]

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
        rows, of which those behind the biases are zero.  Axes of `flat` before the last one stay."""
        block = flat[..., self.offset : self.offset + self.size].reshape(*flat.shape[:-1], -1, self.ld)
        return block[..., : rows or self.n_in + 1, : self.n_out]


def layout(sizes: Sequence[int]) -> tuple[list[Layer], int]:
    """Layers for `sizes`, and the length of the flat buffer."""
    layers, offset = [], 0
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers.append(Layer(n_in, n_out, offset))
        offset += -(-layers[-1].size // _ALIGN) * _ALIGN
    return layers, offset


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
