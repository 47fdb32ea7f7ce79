"""Arrays of the CuPy executor: copies from the host, and which of them overlap."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime

from gpumlp.kernels.kernel import Kernel

__all__ = ["MIB", "Staging", "apart", "described", "dlpack_on_device"]

MIB = 1 << 20
STAGING_BYTES = 64 * MIB  # largest piece of a host-to-device copy


class Staging:
    """Two pinned buffers through which host arrays travel, so that a copy need not wait for the device."""

    def __init__(self) -> None:
        self._slots: list[tuple[Any, np.ndarray, Any]] = []

    def _slot(self, size: int) -> tuple[Any, np.ndarray, Any]:
        """A buffer that no copy in flight reads, of at least `size` bytes."""
        if len(self._slots) < 2:
            return self._allocate(size)
        memory, view, event = self._slots.pop(0)
        if not event.done:
            event.synchronize()
        return (memory, view, event) if view.size >= size else self._allocate(size)

    @staticmethod
    def _allocate(size: int) -> tuple[Any, np.ndarray, Any]:
        size = max(1 << 16, 1 << (size - 1).bit_length())
        memory = cupy.cuda.alloc_pinned_memory(size)
        view = np.frombuffer(memory, np.uint8, size)
        return memory, view, cupy.cuda.Event(disable_timing=True)

    def send(self, dst: cupy.ndarray, src: np.ndarray, stream: Any) -> None:
        """Copy `src` (C-contiguous), converted, to the device array `dst` (C-contiguous)."""
        data, dtype, target = src.reshape(-1), dst.dtype, dst.data.ptr
        step = STAGING_BYTES // dtype.itemsize
        for start in range(0, data.size, step):
            part = data[start : start + step]
            size = part.size * dtype.itemsize
            memory, view, event = self._slot(size)
            view[:size].view(dtype)[:] = part
            runtime.memcpyAsync(target, memory.ptr, size, runtime.memcpyHostToDevice, stream.ptr)
            target += size
            event.record(stream)
            self._slots.append((memory, view, event))


def _extent(array: Any) -> tuple[int, int]:
    """First byte of an array that is not empty, and the one after the last."""
    low = high = array.data.ptr
    if array.flags.c_contiguous:
        return low, low + array.nbytes
    for n, stride in zip(array.shape, array.strides, strict=True):
        low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
    return low, high + array.itemsize


def apart(kernel: Kernel, arrays: dict[str, Any]) -> dict[str, Any]:
    """`arrays` with copies of those that are read where others are written: threads have no order.

    The same elements in the same places do no harm: a thread reads before it writes.
    """
    roles = {a.name: a.role for a in kernel.arrays}
    written = [(arrays[n], _extent(arrays[n])) for n, role in roles.items() if role in ("out", "inout")]
    for name, role in roles.items():
        array = arrays[name]
        if role != "in":
            continue
        low, high = _extent(array)
        for other, (first, last) in written:
            same = array.data.ptr == other.data.ptr and array.strides == other.strides
            if low < last and first < high and not same:
                arrays = {**arrays, name: array.copy()}
    return arrays


def described(shape: Any, dtype: Any) -> str:
    """For messages."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return f"an array of shape {shape} and dtype {np.dtype(dtype)} ({size / MIB:,.1f} MiB)"


def dlpack_on_device(x: Any) -> bool:
    """Whether `x` speaks DLPack and lives on a GPU."""
    # 2 and 10 are kDLCUDA and kDLROCM
    return (
        hasattr(x, "__dlpack_device__") and hasattr(x, "__dlpack__") and x.__dlpack_device__()[0] in (2, 10)
    )
