"""Finds a matrix product (gemm) among the libraries that NumPy or SciPy have loaded already."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

__all__ = ["Blas", "find_blas"]

_FILES = re.compile(r"(openblas|mkl_rt|blis|flexiblas|nvpl_blas|armpl|cblas|libblas)", re.IGNORECASE)
# NumPy's and SciPy's wheels add a prefix, libraries with 64-bit integers a suffix
_THREADS = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")
_SYMBOLS = (
    "scipy_cblas_{}gemm64_",
    "cblas_{}gemm64_",
    "cblas_{}gemm_64",
    "scipy_cblas_{}gemm",
    "cblas_{}gemm",
)


@dataclass(frozen=True)
class Blas:
    """Addresses of sgemm and dgemm, called as cblas does or as Fortran does, and where they come from.

    For an OpenBLAS also the functions that get and set its number of threads, else 0.
    """

    name: str
    sgemm: int
    dgemm: int
    fortran: bool = False
    get_threads: int = 0
    set_threads: int = 0


def find_blas() -> Blas | None:
    """The BLAS that NumPy has loaded, else SciPy's if it is installed, else None."""
    return _from_numpy() or _from_scipy()


def _loaded_libraries() -> list[str]:
    import numpy.linalg  # noqa: F401 - loads the BLAS

    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            paths = {line.split(maxsplit=5)[5].strip() for line in maps if line.count("/") and ".so" in line}
    except OSError:
        return []
    found = [p for p in paths if _FILES.search(p.rsplit("/", 1)[-1])]
    return sorted(found, key=lambda p: ("numpy" not in p, p))


def _from_numpy() -> Blas | None:
    for path in _loaded_libraries():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for symbol in _SYMBOLS:
            sgemm, dgemm = (_address(library, symbol.format(letter)) for letter in "sd")
            if sgemm and dgemm:
                threads = next(
                    (
                        pair
                        for pair in (
                            [_address(library, text.format(verb)) for verb in ("get", "set")]
                            for text in _THREADS
                        )
                        if all(pair)
                    ),
                    (0, 0),
                )
                return Blas(
                    f"{path.rsplit('/', 1)[-1]} ({symbol.format('s')})", sgemm, dgemm, False, *threads
                )
    return None


def _address(library: ctypes.CDLL, symbol: str) -> int:
    found = getattr(library, symbol, None)
    return ctypes.cast(found, ctypes.c_void_p).value or 0 if found else 0


def _from_scipy() -> Blas | None:
    try:
        from scipy.linalg import cython_blas
    except ImportError:
        return None
    table = cython_blas.__pyx_capi__  # the documented way to SciPy's BLAS for other languages
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    sgemm, dgemm = (get_pointer(table[n], get_name(table[n])) for n in ("sgemm", "dgemm"))
    return Blas("scipy.linalg.cython_blas", sgemm, dgemm, fortran=True)
