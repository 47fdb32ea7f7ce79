"""Arrays of the CuPy executor: copies from the host, and which of them overlap."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime

from gpumlp.backends.accesses import extent
from gpumlp.kernels.kernel import Kernel

__all__ = ["MIB", "Staging", "apart", "described", "memory_for"]

MIB = 1 << 20
STAGING_BYTES = 64 * MIB  # largest piece of a host-to-device copy


class _Slot:
    """A pinned buffer, and the means to know that no copy reads it any more."""

    def __init__(self, size: int) -> None:
        size = max(1 << 16, 1 << (size - 1).bit_length())
        self.memory = cupy.cuda.alloc_pinned_memory(size)
        self.view = np.frombuffer(self.memory, np.uint8, size)
        self._event = cupy.cuda.Event(disable_timing=True)
        self._stream: Any = None  # that of a copy behind which the event is not recorded yet

    def wait(self) -> None:
        """Wait until the last copy is done."""
        if self._stream is not None:  # Ctrl-C came between copy and event
            self._stream.synchronize()
            self._stream = None
        elif not self._event.done:
            self._event.synchronize()

    def copy_to(self, target: int, size: int, stream: Any) -> None:
        """Start to copy the first `size` bytes to the device address `target`."""
        self._stream = stream
        runtime.memcpyAsync(target, self.memory.ptr, size, runtime.memcpyHostToDevice, stream.ptr)
        self._event.record(stream)
        self._stream = None

    def __del__(self) -> None:
        # the memory goes back to CuPy's pool, whose next owner must not write what a copy still reads
        if sys is not None and not sys.is_finalizing():  # None: the interpreter has ended
            with suppress(Exception):
                self.wait()


class Staging:
    """Two pinned buffers through which host arrays travel, so that a copy need not wait for the device.

    A buffer stays here, whatever interrupts a copy: given back, it would be written while it is still read.
    """

    def __init__(self) -> None:
        self._slots: list[_Slot | None] = [None, None]
        self._turn = 0

    def _slot(self, size: int) -> _Slot:
        """A buffer that no copy in flight reads, of at least `size` bytes."""
        self._turn ^= 1
        slot = self._slots[self._turn]
        if slot is not None:
            slot.wait()
        if slot is None or slot.view.size < size:
            slot = self._slots[self._turn] = _Slot(size)
        return slot

    def send(self, dst: cupy.ndarray, src: np.ndarray, stream: Any) -> None:
        """Copy `src` (C-contiguous), converted, to the device array `dst` (C-contiguous)."""
        data, dtype, target = src.reshape(-1), dst.dtype, dst.data.ptr
        step = STAGING_BYTES // dtype.itemsize
        for start in range(0, data.size, step):
            part = data[start : start + step]
            size = part.size * dtype.itemsize
            slot = self._slot(size)
            slot.view[:size].view(dtype)[:] = part
            slot.copy_to(target, size, stream)
            target += size


def apart(kernel: Kernel, arrays: dict[str, Any]) -> dict[str, Any]:
    """`arrays` with copies of those that are read where others are written: threads run in any order.

    The same elements in the same places do no harm: a thread reads before it writes.
    """
    roles = {a.name: a.role for a in kernel.arrays}
    written = [(arrays[n], extent(arrays[n])) for n, role in roles.items() if role in ("out", "inout")]
    for name, role in roles.items():
        array = arrays[name]
        if role != "in":
            continue
        low, high = extent(array)
        for other, (first, last) in written:
            same = array.data.ptr == other.data.ptr and array.strides == other.strides
            if low < last and first < high and not same:
                arrays = {**arrays, name: array.copy()}
    return arrays


@contextmanager
def memory_for(device: str, what: str) -> Iterator[None]:
    """MemoryError that says what to do, when CuPy has no memory for `what`."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        free, total = runtime.memGetInfo()
        pool = cupy.get_default_memory_pool()
        limit = pool.get_limit()
        limited = f", which is limited to {limit / MIB:,.1f} MiB" if limit else ""
        raise MemoryError(
            f"{device} is out of memory: {what} was asked for; {free / MIB:,.1f} MiB of "
            f"{total / MIB:,.1f} MiB are free, {pool.free_bytes() / MIB:,.1f} MiB more are cached by "
            f"CuPy's memory pool{limited}. Use a smaller batch_size, network or data set, or give cached "
            "memory back with gpumlp.free_memory()"
        ) from error


def described(shape: Any, dtype: Any) -> str:
    """For messages."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return f"an array of shape {shape} and dtype {np.dtype(dtype)} ({size / MIB:,.1f} MiB)"
