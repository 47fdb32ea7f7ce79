"""`Workspace`: the buffers of a forward and a backward pass, and the operations on them."""

from __future__ import annotations

from typing import Any

from gpumlp.backends.operations import Gemm, Op
from gpumlp.kernels.activations import ACTIVATIONS, backward_kernel, dropout_scalars, forward_kernel
from gpumlp.network import Network, pad
from gpumlp.plans.embedding import EmbeddedInput
from gpumlp.plans.members import launch, per_member
from gpumlp.plans.precision import Precision

__all__ = ["Workspace"]


class Workspace:
    """Activations and their gradients for up to `rows` rows; smaller batches use its first rows.

    a[l] is (rows, n_l), the input of layer l, followed in memory by the constant 1; z[l] the output of the
    gemm of layer l (the same buffer as a[l + 1] where the activation needs no z); d[l] the gradient with
    respect to z[l].  Their dtype is that of `precision`; with 16 bits, row strides are multiples of 8.

    full[l] is a[l] with the constant 1.  For tensor cores it has the zeros behind it as well, so that the
    inner dimension of products is a multiple of 8 (or 1, 2, 4 for narrow TF32): cuBLAS reads such rows in
    pieces of 16 bytes.

    Where the network has members, all arrays have their axis first.  With an embedding, `embedded` has what
    the first layer reads.
    """

    def __init__(
        self, network: Network, rows: int, training: bool, precision: Precision | None = None
    ) -> None:
        self.rows, self.network = rows, network
        self.precision = precision or Precision(network)
        backend, dtype, sizes = network.backend, self.precision.dtype, network.layer_sizes
        pad, lead = self._pad, network.lead
        self.full = [self._with_one(n) for n in sizes[:-1]]
        self.embedded: EmbeddedInput | None = None
        if network.embedded:
            self.embedded = EmbeddedInput(network, rows, training, self.precision)
        self.a = [full[..., :n] for full, n in zip(self.full, sizes[:-1], strict=True)]
        self.z = []
        for n, name, a in zip(sizes[1:-1], network.activations, self.a[1:], strict=True):
            own = ACTIVATIONS[name].needs_z and training
            self.z.append(backend.empty((*lead, rows, pad(n)), dtype)[..., :n] if own else a)
        self.z.append(backend.empty((*lead, rows, pad(sizes[-1])), dtype)[..., : sizes[-1]])
        # zeros: recording a plan runs its products once, and 0 times whatever lay there may be NaN
        self.d = [backend.zeros((*lead, rows, pad(n)), dtype)[..., :n] for n in sizes[1:]] if training else []

    def _pad(self, n: int) -> int:
        return pad(n) if self.precision.half is None else pad(max(n, 8))

    def _with_one(self, n: int) -> Any:
        shape = *self.network.lead, self.rows, self._pad(n + 1)
        buffer = self.network.backend.zeros(shape, self.precision.dtype)
        buffer[..., n] = self.precision.one
        return buffer if self.precision.tensor_cores else buffer[..., : n + 1]

    def forward(self, rows: int, key: Any = None, first_row: int = 0) -> list[Op]:
        """Gemms and activations for the first `rows` rows; with `key`, dropout.  They are the rows of the
        batch from `first_row` on."""
        ops: list[Op] = self.embedded.forward(rows) if self.embedded else []
        for n, layer in enumerate(self.network.layers):
            z = self.z[n][..., :rows, :]
            given, by_columns = self._given(n, rows)
            w = layer.matrix(self.precision.flat, given.shape[-2 if by_columns else -1])
            ops.append(Gemm(given, w, z, trans_a=by_columns, tf32=self.precision.tf32))
            if n < len(self.network.activations):
                kernel, scalars = self._activation(forward_kernel, n, key, first_row)
                if kernel.name != "gpumlp_identity":
                    arrays = {"z": z, "a": self.a[n + 1][..., :rows, :]}
                    ops.append(launch(self.network, kernel, arrays, scalars, rows, layer.n_out))
        return ops

    def backward(self, rows: int, grads: Any, key: Any, first_row: int = 0) -> list[Op]:
        """From d[-1] to `grads` (laid out as the flat buffer).

        First the gradients of all activations, which are made row by row, then those of the weights, which
        are sums over rows: executors that share the rows among threads wait only once between the two.
        """
        ops: list[Op] = []
        tf32 = self.precision.tf32
        for n in range(len(self.network.layers) - 1, 0, -1):
            layer = self.network.layers[n]
            d, below = (self.d[m][..., :rows, :] for m in (n, n - 1))
            w = layer.matrix(self.precision.flat)[..., :-1, :]
            ops.append(Gemm(d, w, below, trans_b=True, tf32=tf32))
            kernel, scalars = self._activation(backward_kernel, n - 1, key, first_row)
            if kernel.name != "gpumlp_identity_backward":
                source = "z" if ACTIVATIONS[self.network.activations[n - 1]].needs_z else "a"
                value = (self.z[n - 1] if source == "z" else self.a[n])[..., :rows, :]
                arrays = {source: value, "d": below}
                ops.append(launch(self.network, kernel, arrays, scalars, rows, layer.n_in))
        for n, layer in enumerate(self.network.layers):
            given, by_columns = self._given(n, rows)
            into = layer.matrix(grads, given.shape[-2 if by_columns else -1])
            ops.append(Gemm(given, self.d[n][..., :rows, :], into, trans_a=not by_columns, tf32=tf32))
        if self.embedded:
            w = self.network.layers[0].matrix(self.precision.flat)
            ops += self.embedded.backward(rows, w, self.d[0][..., :rows, :], grads)
        return ops

    def _given(self, n: int, rows: int) -> tuple[Any, bool]:
        """What layer n reads of the first `rows` rows, with the constant 1, and whether it lies column by
        column."""
        if n == 0 and self.embedded:
            return self.embedded.full[..., :rows], True
        return self.full[n][..., :rows, :], False

    def _activation(self, make: Any, n: int, key: Any, first_row: int) -> tuple[Any, dict[str, Any]]:
        rate, name = self.network.dropouts[n], self.network.activations[n]
        rates = [rate] if self.network.members is None else rate
        if key is None or not any(rates):
            return make(name), {}
        if self.network.members is None:
            return make(name, True), dropout_scalars(rate, key, n, first_row)
        each = [dropout_scalars(rate, own, n) for rate, own in zip(rates, key, strict=True)]
        return make(name, True), per_member(each)
