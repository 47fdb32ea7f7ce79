"""`EmbeddedInput`: the buffers of a network's embedding, and the operations on them.

What it keeps lies column by column: row r of `full` is what the first layer reads as its input r, for all
rows of the batch.  So the kernels of `gpumlp.kernels.embeddings` have their constants per row, their
gradients are sums along rows, and the first layer's products read `full` transposed, at no cost.

The linear layers of all numbers are one product with members.  For a `Stack` its members are the numbers of
all networks.  They must be a constant distance apart, so they are copied: weights out of the flat buffer,
outputs to `full` (which an activation does anyway), and gradients into the flat buffer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpumlp.backends.operations import Gemm, Launch, Op
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
        self.apart = bool(own.inner) and network.members is not None
        self.e: Any = self._buffer(own.number_rows) if self.apart else self.full
        self.d: list[Any] = []
        if training:
            both = [own.number_rows, own.code_rows] if self.apart else [own.number_rows + own.code_rows]
            self.d = [self._buffer(n) for n in both if n]
        periodic = own.embedding.kind == "periodic" and numbers
        self.d_inner: Any = self._buffer(numbers * own.per) if training and periodic else None
        if self.apart:
            size = *network.lead, math.prod(own.parts["weight"].block)
            self.w = backend.zeros(size, precision.dtype)
            self.g = backend.zeros(size, network.dtype) if training else None

        def constant(values: Any, dtype: Any = np.int32) -> Any:
            return backend.asarray(np.ascontiguousarray(values, dtype))

        self.column = constant(own.order)
        self.begin = constant(own.begin)
        if own.inner and own.embedding.edges:
            self.bins = constant(network.bins.reshape(*network.lead, 4, -1), network.dtype)
        self.same = constant(np.repeat([[0.0], [1.0], [-np.inf], [np.inf]], len(own.rest), 1), network.dtype)

    def _buffer(self, n: int, dtype: Any = None) -> Any:
        stride = pad(self.rows) if self.precision.half is None else pad(max(self.rows, 8))
        shape = *self.network.lead, max(n, 1), stride
        buffer = self.network.backend.zeros(shape, dtype or self.precision.dtype)
        return buffer[..., :n, : self.rows]

    def _launch(
        self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], rows: int, n: int, **more: Any
    ) -> Launch:
        shared = ("X", "column", "begin", *more.pop("shared", ()))
        return launch(self.network, kernel, arrays, scalars, rows, n, shared=shared, **more)

    # ---- views -------------------------------------------------------------------------------------------
    def _block_of(self, flat: Any) -> Any:
        """Weights and biases of the numbers' layers in a flat buffer, padding included."""
        block = self.own.parts["weight"]
        return flat[..., block.offset : block.offset + math.prod(block.block)]

    def _linear(self, whole: Any) -> Any:
        """(numbers, rows of `inner`, size): the weights and biases in such a block."""
        own = self.own
        rows = own.per if self.precision.tensor_cores else own.inner + 1
        return whole.reshape(-1, *own.parts["weight"].block[1:])[:, :rows, : own.embedding.size]

    def _each(self, buffer: Any, per: int, rows: int, n: int) -> Any:
        """(numbers, rows, n): the first `rows` of the `per` rows of each number."""
        numbers = len(self.own.numbers) * (self.network.members or 1)
        step, item = buffer.strides[-2:]
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
            ops.append(self._launch(PIECEWISE, arrays, {"per": 1}, len(own.rest), n, shared=("bins",)))
        return ops

    def _forward_inner(self, n: int) -> list[Op]:
        """Numbers that have a linear layer of their own."""
        own, x = self.own, self.x[..., :n]
        rows, size = len(own.numbers) * own.per, own.embedding.size
        arrays = {"e": self.inner[..., :n], "x": x}
        ops: list[Op] = []
        if own.embedding.kind == "piecewise":
            ops.append(self._launch(PIECEWISE, {**arrays, "bins": self.bins}, {"per": own.per}, rows, n))
        else:
            w = own.parts["frequency"].view(self.network.flat).reshape(*self.network.lead, -1)
            scalars = {"count": own.embedding.frequencies, "per": own.per}
            ops.append(self._launch(PERIODIC, {**arrays, "w": w}, scalars, rows, n))
        whole = self._block_of(self.precision.flat)
        if self.apart:
            ops.append(self._copy(whole, self.w))
        w = self._linear(self.w if self.apart else whole)
        inner, e = self._each(self.inner, own.per, w.shape[1], n), self._each(self.e, size, size, n)
        ops.append(Gemm(w, inner, e, trans_a=True, tf32=self.precision.tf32))
        if own.embedding.kind == "periodic" or self.apart:
            kernel = forward_kernel("relu" if own.embedding.kind == "periodic" else "identity")
            z, a = (buffer[..., : own.number_rows, :n] for buffer in (self.e, self.full))
            ops.append(self._launch(kernel, {"z": z, "a": a}, {}, own.number_rows, n))
        return ops

    def _copy(self, source: Any, to: Any) -> Launch:
        return self._launch(forward_kernel("identity"), {"z": source, "a": to}, {}, 1, to.shape[-1])

    def backward(self, n: int, w: Any, d: Any, grads: Any) -> list[Op]:
        """To `grads` (laid out as the flat buffer), from the first layer's weights `w` (inputs, outputs) and
        the gradient `d` (n, outputs) with respect to its outputs."""
        own, codes = self.own, self.own.number_rows
        rows = codes + own.code_rows
        if rows == 0:
            return []
        ops: list[Op] = []
        at = 0
        for into in self.d:
            some = w[..., at : at + into.shape[-2], :]
            ops.append(Gemm(some, d, into[..., :n], trans_b=True, tf32=self.precision.tf32))
            at += into.shape[-2]
        if own.numbers and own.embedding.kind == "cosine":
            arrays = {"d": self.d[0][..., :codes, :n], "x": self.x[..., :n]}
            arrays.update(p=self._block(self.network.flat), g=self._block(grads))
            scalars = {"per": own.embedding.per_number()}
            ops.append(self._launch(COSINE_BACKWARD, arrays, scalars, codes, n))
        elif own.numbers:
            ops += self._backward_inner(n, grads)
        if own.codes:
            # those of the codes are the last ones, in the same buffer as those of the numbers or in their own
            arrays = {"x": self.x[..., len(own.numbers) :, :n], "d": self.d[-1][..., -own.code_rows :, :n]}
            arrays.update(begin=self.begin, g=own.parts["vectors"].view(grads))
            scalars = {"per": own.embedding.category_size, "n": n}
            ops.append(self._launch(CATEGORIES_BACKWARD, arrays, scalars, int(own.begin[-1]), n))
        return ops

    def _backward_inner(self, n: int, grads: Any) -> list[Op]:
        own, size, tf32 = self.own, self.own.embedding.size, self.precision.tf32
        e, d = (buffer[..., : own.number_rows, :n] for buffer in (self.full, self.d[0]))
        periodic = own.embedding.kind == "periodic"
        ops: list[Op] = []
        if periodic:
            ops.append(self._launch(backward_kernel("relu"), {"a": e, "d": d}, {}, own.number_rows, n))
        d = self._each(self.d[0], size, size, n)
        whole, gradient = self._block_of(self.precision.flat), self._block_of(grads)
        w, into = map(self._linear, (self.w, self.g) if self.apart else (whole, gradient))
        inner = self._each(self.inner, own.per, w.shape[1], n)
        ops.append(Gemm(inner, d, into, trans_b=True, tf32=tf32))
        if self.apart:
            ops.append(self._copy(self.g, gradient))
        if periodic:
            below = self._each(self.d_inner, own.per, own.inner, n)
            ops.append(Gemm(w[:, : own.inner], d, below, tf32=tf32))
            arrays = {"e": self.inner[..., :n], "d": self.d_inner[..., :n], "x": self.x[..., :n]}
            arrays["g"] = own.parts["frequency"].view(grads).reshape(*self.network.lead, -1)
            scalars = {"count": own.embedding.frequencies, "per": own.per, "n": n}
            rows = len(own.numbers) * own.embedding.frequencies
            ops.append(self._launch(PERIODIC_BACKWARD, arrays, scalars, rows, n))
        return ops
