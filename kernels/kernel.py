"""The `Kernel` object: one computation, written once, for every executor.

A kernel holds scalar C++ text (`body`) that CuPy compiles with NVRTC, that the native executor compiles with
the machine's C++ compiler, and beside it a NumPy `reference` written from the formula.  It knows nothing of
devices; `gpumlp.backends` runs it.  This module must import neither CuPy nor anything of `gpumlp.backends`.

The text of a body
------------------
* `T` is the type of stored activations, `C` the type of arithmetic (float for float16/bfloat16/float32,
  double for float64).  What must keep full precision is stored as `C`: parameters, optimiser state, rows,
  targets, losses.  Constants are written `C(0.5)`, so that no double arithmetic slips into a float32 kernel.
* **Map kernels** (`rowwise=False`) run once for each element `(r, c)` of a `rows` x `cols` space.  Inputs,
  outputs and in-place arrays appear as scalars of type `C` under their own names: they are read before the
  body starts and stored once after it ends.  The variables `r`, `c`, `k` (`long long`) may be read.
* **Row kernels** (`rowwise=True`) run once for each row; non-raw arrays are pointers to that row (`z[c]`).
  The body is made of the statements `ROW_SUM(name, expr)`, `ROW_MAX(name, expr)` (declare `C name`, reduced
  over the columns `c`), `ROW_SUM2(name, expr, other, expr)` (two sums that share what they compute, without
  commas outside of brackets), `ROW_EACH { ... }` (for each column) and `ROW_ONE { ... }` (once for the row).
  An executor may give a row to one thread or to many; a statement sees all that earlier ones stored for the
  same column, not for other columns.
* `raw` arrays appear as plain pointers, indexed by the body; the row stride of a 2-D array is `ld_<name>`.
* Names in `stepped` are per-step values of type `C`; they come from row `k` of the plan's step table, or by
  value when a kernel is launched alone (then `k` = 0).
* If `masked`, the variable `decay` is 1 for an element that is a weight and 0 for a bias.
* Portable functions: sqrt rsqrt exp log log1p expm1 tanh erf cospi sinpi fabs (all on `C`), comparison, ?:,
  integers.  cospi(x) is cos(pi x).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FIXED", "Array", "Kernel", "Scalar"]

#: array types that are the same whatever T and C are, by NumPy's names -> C++
FIXED = {
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "int64": "long long",
    "float32": "float",
    "float64": "double",
}


@dataclass(frozen=True)
class Array:
    """One array parameter: `ctype` is "T", "C" or one of `FIXED`; `role` is in, out, inout, raw or rawout."""

    ctype: str
    name: str
    role: str


@dataclass(frozen=True)
class Scalar:
    """One scalar passed by value: `ctype` is "C" or "int64" (`long long` in the text)."""

    ctype: str
    name: str


def _split(text: str) -> list[tuple[str, str]]:
    """'T z, const long long n' -> [('T', 'z'), ...]."""
    pairs = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        ctype, name = part.rsplit(None, 1)
        pairs.append((ctype, name))
    return pairs


@dataclass(frozen=True)
class Kernel:
    """A named computation with its C++ body and its NumPy reference.

    Parameters
    ----------
    name : str
        Name shown by profilers; starts with ``gpumlp_``.  Two kernels with different text have different
        names.
    inputs, outputs, inouts, raws, rawouts : str
        Array parameters, ``"T z, C m"``, or with a type of `FIXED`.
    scalars : str
        Constants passed by value, e.g. ``"C eps, int64 stride"``.
    stepped : tuple of str
        Per-step values (type ``C``).
    body : str
        The C++ text, see the module's docstring.
    per_row : str
        Of a map kernel: text ahead of the body in which everything depends on the row (and k) alone.
        Compilers find loops over columns easier without it.
    reference : callable
        ``reference(**arrays, **scalars, **stepped, k=int[, decay=float])``: the same computation in NumPy on
        arrays of shape (rows, cols) (or any one shape for flat map kernels), in place.  Raw arrays come as
        they are.
    rowwise, masked : bool
        See the module's docstring.
    """

    name: str
    body: str
    reference: Callable[..., None]
    inputs: str = ""
    outputs: str = ""
    inouts: str = ""
    raws: str = ""
    rawouts: str = ""
    scalars: str = ""
    stepped: tuple[str, ...] = ()
    rowwise: bool = False
    masked: bool = False
    per_row: str = ""
    arrays: tuple[Array, ...] = field(init=False, compare=False)
    constants: tuple[Scalar, ...] = field(init=False, compare=False)
    _names: tuple[frozenset[str], frozenset[str]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        roles = (
            ("in", self.inputs),
            ("out", self.outputs),
            ("inout", self.inouts),
            ("raw", self.raws),
            ("rawout", self.rawouts),
        )
        arrays = tuple(Array(t, n, role) for role, text in roles for t, n in _split(text))
        object.__setattr__(self, "arrays", arrays)
        constants = tuple(Scalar(t, n) for t, n in _split(self.scalars))
        object.__setattr__(self, "constants", constants)
        names = frozenset(a.name for a in arrays), frozenset(s.name for s in constants)
        object.__setattr__(self, "_names", names)

    def check(self, given: dict[str, Any], scalars: dict[str, Any]) -> None:
        """Raise TypeError if the names of arrays and scalars are not exactly this kernel's own."""
        for what, named, wanted in zip(("arrays", "scalars"), (given, scalars), self._names, strict=True):
            if named.keys() != wanted:
                raise TypeError(f"{self.name}: {what} {sorted(named)}, expected {sorted(wanted)}")
