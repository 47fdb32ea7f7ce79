"""A thin binding of cuBLAS: matrix products that may be captured into a CUDA graph.

CuPy refuses cuBLAS calls while a stream is being captured.  So this calls the library that CuPy has loaded on
a handle of its own, whose workspace is allocated before (cuBLAS would allocate during capture).
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

from gpumlp.backends.operations import Gemm

__all__ = ["Cublas", "CublasError", "load_library", "matmul"]

_STATUS = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED",
    3: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR",
    13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED",
    16: "CUBLAS_STATUS_LICENSE_ERROR",
}
# single precision stays single precision (no TF32 unless a product asks for it), and sums of products of
# 16 bits are never rounded to 16 bits on the way
_MATH_MODE = 0 | 16  # CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION
_TYPES = {"float32": 0, "float16": 2, "uint16": 14}  # cudaDataType; uint16 holds the bits of bfloat16
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32 = 68, 77
_GEMM_DEFAULT = -1
_LARGEST = 2**31 - 1


class CublasError(RuntimeError):
    """A cuBLAS call failed; the message names call and status."""


def load_library() -> ctypes.CDLL:
    """The cuBLAS library that CuPy uses; OSError if there is none."""
    from cupy_backends.cuda.api import runtime
    from cupy_backends.cuda.libs import cublas  # noqa: F401  (loads the library into the process)

    majors = dict.fromkeys((runtime.runtimeGetVersion() // 1000, 13, 12, 11))
    names = [f"cublas64_{m}.dll" if sys.platform == "win32" else f"libcublas.so.{m}" for m in majors]
    for name in names:
        try:
            return ctypes.CDLL(name)  # by name: the loader gives the copy that is loaded already
        except OSError:
            continue
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception as error:
        raise OSError(f"cuBLAS was not found (tried {', '.join(names)}): {error}") from error


def _check(status: int, call: str) -> None:
    if status:
        raise CublasError(f"{call}: {_STATUS.get(status, f'status {status}')}")


def _destroy(library: ctypes.CDLL, handle: ctypes.c_void_p, process: int) -> None:
    if os.getpid() == process:  # not in a child of fork, where CUDA cannot be called
        library.cublasDestroy_v2(handle)


def _leading(array: Any) -> int:
    """Row stride in elements; of a single row, its length."""
    rows, cols = array.shape[-2:]
    return array.strides[-2] // array.itemsize if rows > 1 else max(1, cols)


def _jump(array: Any) -> int:
    """Distance of two members in elements; 0 if they have the array in common."""
    return array.strides[0] // array.itemsize if array.ndim == 3 else 0


class Cublas:
    """A cuBLAS handle on the current device, with its own workspace.

    Parameters
    ----------
    workspace : cupy.ndarray of uint8
        Used by all products of this handle, which therefore must be ordered among each other.
    """

    def __init__(self, workspace: Any) -> None:
        self._lib = load_library()
        self._workspace = workspace
        self._stream: int | None = None
        self._handle = ctypes.c_void_p()
        _check(self._lib.cublasCreate_v2(ctypes.byref(self._handle)), "cublasCreate")
        weakref.finalize(self, _destroy, self._lib, self._handle, os.getpid()).atexit = False
        _check(self._lib.cublasSetMathMode(self._handle, _MATH_MODE), "cublasSetMathMode")
        integer, pointer = ctypes.c_int, ctypes.c_void_p
        for name in ("cublasSgemm_v2", "cublasDgemm_v2"):
            getattr(self._lib, name).argtypes = [
                pointer,
                integer,
                integer,
                integer,
                integer,
                integer,
                pointer,
                pointer,
                integer,
            ] + [pointer, integer, pointer, pointer, integer]
        sizes: list[Any] = [pointer, integer, integer, integer, integer, integer]
        typed: list[Any] = [pointer, integer, integer]  # address, type, row stride
        self._lib.cublasGemmEx.argtypes = sizes + [pointer, *typed, *typed, pointer, *typed, integer, integer]
        long = ctypes.c_longlong
        for name in ("cublasSgemmStridedBatched", "cublasDgemmStridedBatched"):
            each = [pointer, integer, long]
            getattr(self._lib, name).argtypes = sizes + [pointer, *each, *each, pointer, *each, integer]
        each = [*typed, long]
        self._lib.cublasGemmStridedBatchedEx.argtypes = (
            sizes + [pointer, *each, *each, pointer, *each] + [integer] * 3
        )

    def version(self) -> str:
        """Such as "12.9.1"."""
        number = ctypes.c_int()
        _check(self._lib.cublasGetVersion_v2(self._handle, ctypes.byref(number)), "cublasGetVersion")
        major, rest = divmod(number.value, 10000)
        return f"{major}.{rest // 100}.{rest % 100}"

    def set_stream(self, stream: int) -> None:
        """Send the following products to the stream with this address."""
        if stream == self._stream:
            return
        _check(self._lib.cublasSetStream_v2(self._handle, ctypes.c_void_p(stream)), "cublasSetStream")
        # changing the stream takes the workspace away
        status = self._lib.cublasSetWorkspace_v2(
            self._handle,
            ctypes.c_void_p(self._workspace.data.ptr),
            ctypes.c_size_t(self._workspace.nbytes),
        )
        _check(status, "cublasSetWorkspace")
        self._stream = stream

    def bind(self, op: Gemm) -> Callable[[], None]:
        """A function that runs `op` on the stream set by then; ValueError if it is too large for cuBLAS.

        It holds addresses, not arrays: the caller keeps those alive.
        """
        members = op.members
        if members == 1:
            return self.bind(op.member(0))
        a, b, c = op.a, op.b, op.c
        rows, inner = a.shape[:-3:-1] if op.trans_a else a.shape[-2:]
        cols = c.shape[-1]
        kind = a.dtype.name
        double, half = kind == "float64", kind in ("float16", "uint16")
        one, zero = ((ctypes.c_double if double else ctypes.c_float)(v) for v in (1, 0))
        # cuBLAS is column-major: it sees the transposes, and c^T = op(b)^T op(a)^T
        sizes = (int(op.trans_b), int(op.trans_a), cols, rows, inner)
        typed = op.tf32 or half
        places = [
            (
                x.data.ptr,
                *((_TYPES[x.dtype.name],) if typed else ()),
                _leading(x),
                *((_jump(x),) if members else ()),
            )
            for x in (b, a, c)
        ]
        if max(*sizes, *map(_leading, (a, b, c)), members or 0) > _LARGEST:
            raise ValueError(
                f"gemm of shapes {a.shape} and {b.shape} into {c.shape}: cuBLAS takes sizes and row strides "
                f"of at most {_LARGEST}; use a smaller batch_size or network"
            )
        name = "cublasGemm" if typed else "cublasDgemm" if double else "cublasSgemm"
        name += "StridedBatched" if members else ""
        name += "Ex" if typed else "" if members else "_v2"
        call = getattr(self._lib, name)
        last: tuple[int, ...] = (members,) if members else ()
        if typed:
            last += (_COMPUTE_32F_FAST_TF32 if op.tf32 else _COMPUTE_32F, _GEMM_DEFAULT)
        arguments = (
            self._handle,
            *sizes,
            ctypes.addressof(one),
            *places[0],
            *places[1],
            ctypes.addressof(zero),
            *places[2],
            *last,
        )

        def run(constants: Any = (one, zero)) -> None:  # the default keeps the two numbers alive
            status = call(*arguments)
            if status:
                _check(status, f"{call.__name__}(m={cols}, n={rows}, k={inner})")

        return run


def matmul(a: Any, b: Any, out: Any) -> None:
    """The product by CuPy, where cuBLAS cannot be called."""
    out[...] = a @ b
