"""`EmbeddedInput`: the buffers of a network's embedding, and the operations on them.

What it keeps lies column by column: row r of `full` is what the first layer reads as its input r, for all
rows of the batch.  So the kernels of `gpumlp.kernels.embeddings` have their constants per row, their
gradients are sums along rows, and the first layer's products read `full` transposed, at no cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.base import Gemm, Launch, Op
from gpumlp.kernels.activations import backward_kernel, forward_kernel
from gpumlp.kernels.embeddings import (
    CATEGORIES,
    CATEGORIES_BACKWARD,
    COSINE,
    COSINE_BACKWARD,
    PERIODIC,
    PERIODIC_BACKWARD,
    PIECEWISE,
    columns_kernel,
)
from gpumlp.kernels.kernel import Kernel
from gpumlp.network import Embedded, Network, pad
from gpumlp.plans.members import launch
from gpumlp.plans.precision import Precision

__all__ = ["EmbeddedInput"]


class EmbeddedInput:
    """The embedding of up to `rows` rows.

    Parameters
    ----------
    network : Network
        Its `embedded` is not None.
    rows : int
    training : bool
        There are buffers for the gradients.
    precision : Precision

    Attributes
    ----------
    full : array (inputs of the first layer + 1, rows)
        The last row is the constant 1; for tensor cores, rows of zeros follow.
    """

    def __init__(self, network: Network, rows: int, training: bool, precision: Precision) -> None:
        assert network.embedded is not None
        self.own: Embedded = network.embedded
        self.network, self.precision, self.rows = network, precision, rows
        own, backend = self.own, network.backend
        numbers = len(own.numbers)
        self.x = self._buffer(len(own.order), network.dtype)
        inner = -(-(own.width + 1) // 8) * 8 if precision.tensor_cores else own.width + 1
        self.full = self._buffer(inner)
        self.full[..., own.width, :] = precision.one
        self.inner: Any = self._buffer(numbers * own.per) if own.inner else None
        self.d: Any = self._buffer(own.number_rows + own.code_rows) if training else None
        periodic = own.embedding.kind == "periodic" and numbers
        self.d_inner: Any = self._buffer(numbers * own.per) if training and periodic else None

        def constant(values: Any, dtype: Any = np.int32) -> Any:
            return backend.asarray(np.ascontiguousarray(values, dtype))

        self.column = constant(own.order)
        self.begin = constant(own.begin)
        if own.inner and own.embedding.edges:
            self.bins = constant(own.bins().reshape(4, -1), network.dtype)
        self.same = constant(np.repeat([[0.0], [1.0], [-np.inf], [np.inf]], len(own.rest), 1), network.dtype)

    def _buffer(self, n: int, dtype: Any = None) -> Any:
        stride = pad(self.rows) if self.precision.half is None else pad(max(self.rows, 8))
        shape = *self.network.lead, max(n, 1), stride
        buffer = self.network.backend.zeros(shape, dtype or self.precision.dtype)
        return buffer[..., :n, : self.rows]

    def _launch(
        self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], rows: int, n: int, **more: Any
    ) -> Launch:
        shared = ("X", "column", "begin", "bins")
        return launch(self.network, kernel, arrays, scalars, rows, n, shared=shared, **more)

    # ---- views -------------------------------------------------------------------------------------------
    def _linear(self, flat: Any) -> Any:
        """(numbers, rows of `inner`, size): weights and biases of the numbers' layers in a flat buffer."""
        own, block = self.own, self.own.parts["weight"]
        rows = own.per if self.precision.tensor_cores else own.inner + 1
        whole = flat[block.offset : block.offset + int(np.prod(block.block))].reshape(block.block)
        return whole[:, :rows, : own.embedding.size]

    def _apart(self, buffer: Any, per: int, rows: int, n: int) -> Any:
        """(numbers, rows, n): the first `rows` of the `per` rows of each number."""
        numbers = len(self.own.numbers)
        step, item = buffer.strides
        strided = self.network.backend.xp.lib.stride_tricks.as_strided
        return strided(buffer, (numbers, rows, n), (per * step, step, item))

    def _block(self, flat: Any) -> Any:
        """(4, outputs): frequencies, phases, amplitudes and shifts of a cosine embedding in a flat buffer."""
        start, row = self.own.parts["frequency"].offset, self.own.parts["phase"].offset
        return flat[..., start : start + 4 * (row - start)].reshape(*flat.shape[:-1], 4, row - start)

    # ---- operations --------------------------------------------------------------------------------------
    def gather(self, n: int, X: Any, index: Any, stride: int) -> Launch:
        """Copy the columns of the next `n` rows of `X`, with the numbers index[k stride:], to `x`."""
        kernel = columns_kernel(None if X.dtype == self.network.dtype else X.dtype.name)
        count = self.network.layer_sizes[0]
        arrays = {"x": self.x[..., :n], "index": index, "column": self.column, "X": X}
        extents = {"X": (1, count), "index": (n,), "column": (count,)}
        return self._launch(kernel, arrays, {"stride": stride}, count, n, tick="first", extents=extents)

    def forward(self, n: int) -> list[Op]:
        """From `x` to `full`, for the first `n` rows of the batch."""
        own, kind = self.own, self.own.embedding.kind
        codes, rest = own.number_rows, own.number_rows + own.code_rows
        ops: list[Op] = []
        x = self.x[..., :n]
        if own.numbers and kind == "cosine":
            arrays = {"e": self.full[..., :codes, :n], "x": x, "p": self._block(self.network.flat)}
            scalars = {"per": own.embedding.per_number()}
            ops.append(self._launch(COSINE, arrays, scalars, codes, n))
        elif own.numbers:
            ops += self._forward_inner(n)
        if own.codes:
            arrays = {"e": self.full[..., codes:rest, :n], "x": x[..., len(own.numbers) :, :]}
            arrays.update(vectors=own.parts["vectors"].view(self.network.flat), begin=self.begin)
            scalars = {"per": own.embedding.category_size}
            ops.append(self._launch(CATEGORIES, arrays, scalars, own.code_rows, n))
        if own.rest:
            passed = x[..., len(own.numbers) + len(own.codes) :, :]
            arrays = {"e": self.full[..., rest : own.width, :n], "x": passed, "bins": self.same}
            ops.append(self._launch(PIECEWISE, arrays, {"per": 1}, len(own.rest), n))
        return ops

    def _forward_inner(self, n: int) -> list[Op]:
        """Numbers that have a linear layer of their own."""
        own, x = self.own, self.x[..., :n]
        arrays = {"e": self.inner[:, :n], "x": x}
        ops: list[Op] = []
        if own.embedding.kind == "piecewise":
            arrays["bins"] = self.bins
            ops.append(self._launch(PIECEWISE, arrays, {"per": own.per}, len(self.inner), n))
        else:
            w = own.parts["frequency"].view(self.network.flat).reshape(-1)
            scalars = {"count": own.embedding.frequencies, "per": own.per}
            ops.append(self._launch(PERIODIC, {**arrays, "w": w}, scalars, len(self.inner), n))
        w = self._linear(self.precision.flat)
        size = own.embedding.size
        inner, e = self._apart(self.inner, own.per, w.shape[1], n), self._apart(self.full, size, size, n)
        ops.append(Gemm(w, inner, e, trans_a=True, tf32=self.precision.tf32))
        if own.embedding.kind == "periodic":
            e = self.full[..., : own.number_rows, :n]
            ops.append(self._launch(forward_kernel("relu"), {"z": e, "a": e}, {}, own.number_rows, n))
        return ops

    def backward(self, n: int, w: Any, d: Any, grads: Any) -> list[Op]:
        """To `grads` (laid out as the flat buffer), from the first layer's weights `w` (inputs, outputs) and
        the gradient `d` (n, outputs) with respect to its outputs."""
        own, codes = self.own, self.own.number_rows
        rows = codes + own.code_rows
        if rows == 0:
            return []
        ops: list[Op] = [Gemm(w[..., :rows, :], d, self.d[..., :n], trans_b=True, tf32=self.precision.tf32)]
        if own.numbers and own.embedding.kind == "cosine":
            arrays = {"d": self.d[..., :codes, :n], "x": self.x[..., :n]}
            arrays.update(p=self._block(self.network.flat), g=self._block(grads))
            scalars = {"per": own.embedding.per_number()}
            ops.append(self._launch(COSINE_BACKWARD, arrays, scalars, codes, n))
        elif own.numbers:
            ops += self._backward_inner(n, grads)
        if own.codes:
            arrays = {"x": self.x[..., len(own.numbers) :, :n], "d": self.d[..., codes:, :n]}
            arrays.update(begin=self.begin, g=own.parts["vectors"].view(grads))
            scalars = {"per": own.embedding.category_size, "n": n}
            ops.append(self._launch(CATEGORIES_BACKWARD, arrays, scalars, int(own.begin[-1]), n))
        return ops

    def _backward_inner(self, n: int, grads: Any) -> list[Op]:
        own, size, tf32 = self.own, self.own.embedding.size, self.precision.tf32
        e, d = self.full[..., : own.number_rows, :n], self.d[: own.number_rows, :n]
        periodic = own.embedding.kind == "periodic"
        ops: list[Op] = []
        if periodic:
            ops.append(self._launch(backward_kernel("relu"), {"a": e, "d": d}, {}, own.number_rows, n))
        d = self._apart(self.d, size, size, n)
        w, into = self._linear(self.precision.flat), self._linear(grads)
        inner = self._apart(self.inner, own.per, w.shape[1], n)
        ops.append(Gemm(inner, d, into, trans_b=True, tf32=tf32))
        if periodic:
            below = self._apart(self.d_inner, own.per, own.inner, n)
            ops.append(Gemm(w[:, : own.inner], d, below, tf32=tf32))
            arrays = {"e": self.inner[:, :n], "d": self.d_inner[:, :n], "x": self.x[..., :n]}
            arrays["g"] = own.parts["frequency"].view(grads).reshape(-1)
            scalars = {"count": own.embedding.frequencies, "per": own.per, "n": n}
            ops.append(self._launch(PERIODIC_BACKWARD, arrays, scalars, len(arrays["g"]), n))
        return ops
