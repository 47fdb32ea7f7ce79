"""From a `Kernel` to the text of a `cupy.ElementwiseKernel`.  Does not import CuPy: reports need no GPU.

Four forms:

* ``map``: all arrays are raw; a thread handles `width` (1 or 4) consecutive columns of one row: vector loads,
  the body on locals, vector stores.  Everything is read once before and stored once after, so the compiler
  need not assume that arrays overlap.
* ``list``: as ``map``, of width 4, over many C-contiguous arrays in one launch.  A block works on one of
  them: `owner_` has its number, that row of `list_` its first thread, its size and the kernel's addresses.
* ``row``: `width` threads (1, 8, 32 or 256) share a row; sums and maxima in a fixed order, without atomics.
* ``strided``: CuPy's own indexing, one thread per element, for arrays of any strides.

In all but the last the launch has at least one thread, and `count_` says how many have work: with 0 a launch
only compiles and loads the kernel.  In a plan, `late_` is 0 in the first kernel of a step and 1 in all others
(see `base.Launch.tick`), and thread number `ticker_` advances the counters, -1 for none.  (As a condition on
`i`, not a flag: for a flag the compiler makes the whole loop twice.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpumlp.kernels.kernel import FIXED, Array, Kernel

__all__ = ["LIST_HEAD", "Form", "Source", "array_dtype", "needs_stride", "source", "team_size"]

_CTYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "gpumlp_float16",
    "bfloat16": "gpumlp_bfloat16",
}
# 16 bits that become a float where they are read; parameters are declared as uint16
_HALF = {
    "float16": """
#include <cuda_fp16.h>
struct gpumlp_float16 {
    unsigned short bits;
    gpumlp_float16() = default;
    __device__ __forceinline__ explicit gpumlp_float16(float x) {
        bits = __half_as_ushort(__float2half_rn(x));
    }
    __device__ __forceinline__ operator float() const { return __half2float(__ushort_as_half(bits)); }
    __device__ __forceinline__ void operator=(float x) { bits = gpumlp_float16(x).bits; }
};
""",
    "bfloat16": """
struct gpumlp_bfloat16 {
    unsigned short bits;
    gpumlp_bfloat16() = default;
    __device__ __forceinline__ explicit gpumlp_bfloat16(float x) {
        const unsigned u = __float_as_uint(x);  // to nearest, ties to even; NaN stays NaN
        bits = x != x ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
    }
    __device__ __forceinline__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
    __device__ __forceinline__ void operator=(float x) { bits = gpumlp_bfloat16(x).bits; }
};
""",
}

LIST_HEAD = 2  # numbers in a row of `list_` before the addresses
_PACK = """
template <typename S> struct alignas(4 * sizeof(S) < 16 ? 4 * sizeof(S) : 16) gpumlp_pack { S v[4]; };
"""

_TEAM = """
#define TEAM_ {team}
#if TEAM_ > 32
#define LANES_ 32
#else
#define LANES_ TEAM_
#endif
#if defined(__HIPCC__) || defined(__HIP_DEVICE_COMPILE__)
#define SHUFFLE_(mask, v, offset) __shfl_xor(v, offset)
#else
#define SHUFFLE_(mask, v, offset) __shfl_xor_sync(mask, v, offset)
#endif
template <bool MAX> __device__ __forceinline__ C gpumlp_join(C a, C b) {{
    return MAX ? (b > a ? b : a) : a + b;
}}
// The same value in all threads of a row; the order depends on the number of columns only.
template <bool MAX> __device__ __forceinline__ C gpumlp_reduce(C v) {{
    const unsigned mask = (0xffffffffu >> (32 - LANES_)) << (threadIdx.x & 31 & ~(LANES_ - 1));
    #pragma unroll
    for (int offset = LANES_ / 2; offset > 0; offset >>= 1)
        v = gpumlp_join<MAX>(v, SHUFFLE_(mask, v, offset));
#if TEAM_ > 32
    __shared__ C part[TEAM_ / 32];
    __syncthreads();  // an earlier reduction's `part` has been read
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
    __syncthreads();
    v = part[0];
    #pragma unroll
    for (int w = 1; w < TEAM_ / 32; ++w) v = gpumlp_join<MAX>(v, part[w]);
#endif
    return v;
}}
#define ROW_EACH for (long long c = lane_; c < cols_; c += TEAM_)
#define ROW_ONE if (lane_ == 0)
#define ROW_SUM(name, ...) C name = C(0); \\
    ROW_EACH {{ name += (__VA_ARGS__); }} name = gpumlp_reduce<false>(name);
#define ROW_MAX(name, ...) C name = C(-1) / C(0); \\
    ROW_EACH {{ name = gpumlp_join<true>(name, (__VA_ARGS__)); }} name = gpumlp_reduce<true>(name);
"""


@dataclass(frozen=True)
class Form:
    """How a kernel is run.

    Parameters
    ----------
    kind : str
        "map", "list", "row" or "strided".
    dtype : str
        T: "float32", "float64", "float16" or "bfloat16".
    width : int
        Columns per thread (map: 1 or 4), threads per row (row: 1, 8, 32, 256).
    plan : bool
        k and the stepped values come from the plan's counters and table, not by value.
    masked : bool
        `decay` comes from a bit per column, else it is 1.
    """

    kind: str
    dtype: str
    width: int = 1
    plan: bool = False
    masked: bool = False

    @property
    def compute(self) -> str:
        """C: the type of arithmetic."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def block_size(self) -> int:
        """Threads per block; a row never spans two blocks."""
        return 256 if self.kind == "row" and self.width == 256 else 128


@dataclass(frozen=True)
class Source:
    """Arguments of a `cupy.ElementwiseKernel`; `inputs` and `outputs` are its parameters, (type, name) pairs.

    Array parameters are called ``<name>_`` (``raw`` but for the strided form), row strides ``ld_<name>``.
    """

    name: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    operation: str
    preamble: str
    block_size: int

    @property
    def in_params(self) -> str:
        """First argument of `cupy.ElementwiseKernel`."""
        return ", ".join(f"{ctype} {name}" for ctype, name in self.inputs)

    @property
    def out_params(self) -> str:
        """Second argument of `cupy.ElementwiseKernel`."""
        return ", ".join(f"{ctype} {name}" for ctype, name in self.outputs)


def team_size(rows: int, cols: int) -> int:
    """Threads that share one row of a row kernel."""
    if cols <= 4:
        return 1
    if cols <= 16:
        return 8
    return 256 if cols > 1024 or (cols > 128 and rows <= 1024) else 32


def array_dtype(array: Array, form: Form) -> str:
    """dtype that an array parameter is declared with."""
    stored = "uint16" if form.dtype in _HALF else form.dtype
    return {"T": stored, "C": form.compute}.get(array.ctype, array.ctype)


def needs_stride(kernel: Kernel, array: Array) -> bool:
    """Whether ``ld_<name>`` is a parameter (map and row forms)."""
    return not array.role.startswith("raw") or re.search(rf"\bld_{array.name}\b", kernel.body) is not None


def source(kernel: Kernel, form: Form) -> Source:
    """Text and parameter lists of `kernel` in the given form.

    Raises
    ------
    ValueError
        A form that the kernel does not have.
    """
    if form.dtype not in _CTYPES:
        raise ValueError(f"{kernel.name}: dtype {form.dtype}; CUDA kernels exist for {', '.join(_CTYPES)}")
    if kernel.rowwise != (form.kind == "row"):
        raise ValueError(f"{kernel.name} is a {'row' if kernel.rowwise else 'map'} kernel, not {form.kind}")
    if form.kind == "strided" and form.dtype in _HALF:
        raise ValueError(f"{kernel.name}: dtype {form.dtype}; arrays of any strides are float32 or float64")
    if form.kind == "row" and kernel.masked:
        raise ValueError(f"{kernel.name}: a row kernel cannot be masked")
    if form.kind == "list" and any(a.role.startswith("raw") for a in kernel.arrays):
        raise ValueError(f"{kernel.name}: a kernel with raw arrays has no list form")
    make = {"map": _map_text, "list": _list_text, "row": _row_text, "strided": _strided_text}[form.kind]
    types = f"typedef {_CTYPES[form.dtype]} T;\ntypedef {_CTYPES[form.compute]} C;\n"
    types = _HALF.get(form.dtype, "") + types
    extra = {"row": _TEAM.format(team=form.width), "strided": ""}.get(form.kind, _PACK)
    inputs, outputs = _parameters(kernel, form)
    return Source(kernel.name, inputs, outputs, make(kernel, form), types + extra, form.block_size)


def _parameters(
    kernel: Kernel, form: Form
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    raw = "" if form.kind == "strided" else "raw "
    inputs: list[tuple[str, str]] = []
    outputs: list[tuple[str, str]] = []
    if form.kind == "list":
        inputs += [("int64", "count_"), ("raw int32", "owner_"), ("raw int64", "list_")]
    elif form.kind != "strided":
        inputs += [("int64", "count_"), ("int64", "cols_")]
        inputs += [("uint32", "groups_")] if form.kind == "map" else []
    for array in kernel.arrays if form.kind != "list" else ():
        prefix = "raw " if array.role.startswith("raw") else raw
        side = inputs if array.role in ("in", "raw") else outputs
        side.append((prefix + array_dtype(array, form), f"{array.name}_"))
        if form.kind != "strided" and needs_stride(kernel, array):
            inputs.append(("int64", f"ld_{array.name}"))
    types = {"C": form.compute, "int64": "int64"}
    inputs += [(types[s.ctype], s.name) for s in kernel.constants]
    if form.plan:
        inputs += [("int32", "late_"), ("int32", "ticker_")]
        outputs.append(("raw int64", "counters_"))
        if kernel.stepped:
            inputs += [("raw " + form.compute, "table_"), ("int64", "table_width_")]
            inputs += [("int32", f"{name}_at_") for name in kernel.stepped]
    else:
        inputs += [(form.compute, name) for name in kernel.stepped]
    if form.masked:
        inputs.append(("raw uint8", "decay_bits_"))
    return tuple(inputs), tuple(outputs)


def _ctype(array: Array) -> str:
    return FIXED.get(array.ctype, array.ctype)


def _const(array: Array) -> str:
    return "const " if array.role in ("in", "raw") else ""


def _start(array: Array) -> str:
    """Address of the first element; T may be another type of 16 bits than the parameter's."""
    address = f"&{array.name}_[0]"
    return f"({_const(array)}T*)({address})" if array.ctype == "T" else address


def _pointers(arrays: list[Array]) -> list[str]:
    """Raw arrays under their own names; the address is taken before the offset is added, because CuPy's index
    may have 32 bits."""
    return [
        f"{_const(a)}{_ctype(a)}* const {a.name} = {_start(a)};" for a in arrays if a.role.startswith("raw")
    ]


def _frame(kernel: Kernel, form: Form, lines: list[str], ahead: Sequence[str] = ()) -> str:
    """`ahead`, the step number, `lines` for the threads that have work, and the tick.

    What is in `ahead` does not wait for the counters: the large loads are under way when the step number
    arrives.  The tick is stored last, because no load may pass a store.
    """
    head, tail = ["const long long k = 0;"], []
    values: list[str] = []
    if form.plan:
        head = ["const long long k = counters_[late_] - late_;"]
        tail = ["if (i == ticker_) counters_[1 - late_] = k + 1;"]
        if kernel.stepped:
            values = ["const C* const values_ = &table_[0] + k * table_width_;"]
            values += [f"const C {name} = values_[{name}_at_];" for name in kernel.stepped]
    pointers = _pointers(list(kernel.arrays))
    return "\n".join([*ahead, *head, "if (i < count_) {", *values, *pointers, *lines, "}", *tail])


def _element(kernel: Kernel) -> tuple[list[Array], list[str]]:
    """The body as a local function of column, inputs by value, outputs by reference and `decay`."""
    plain = [a for a in kernel.arrays if not a.role.startswith("raw")]
    parameters = ["const long long c"]
    parameters += [f"C {a.name}" if a.role == "in" else f"C& {a.name}" for a in plain]
    parameters += ["const C decay"] if kernel.masked else []
    return plain, [f"auto element_ = [&]({', '.join(parameters)}) {{", kernel.body, "};"]


def _calls(kernel: Kernel, plain: list[Array], column: str, value: str, decay: str) -> list[str]:
    """Read each array's element (`value` with the name filled in), run the body, write the results back."""
    lines = []
    for a in plain:
        start = "C(0)" if a.role == "out" else f"C({value.format(a.name)})"
        lines.append(f"C {a.name} = {start};")
    arguments = [column, *(a.name for a in plain), *([decay] if kernel.masked else [])]
    lines.append(f"element_({', '.join(arguments)});")
    lines += [f"{value.format(a.name)} = {_ctype(a)}({a.name});" for a in plain if a.role != "in"]
    return lines


def _map_text(kernel: Kernel, form: Form) -> str:
    plain, element = _element(kernel)
    width = form.width
    ahead = [
        "const unsigned item_ = (unsigned)i, row_ = item_ / groups_;",
        "const long long r = row_;",
        f"const long long first_ = {width}ll * (item_ - row_ * groups_);",
        *(
            f"{_const(a)}{_ctype(a)}* const {a.name}_p_ = {_start(a)} + r * ld_{a.name} + first_;"
            for a in plain
        ),
    ]
    lines = [
        *(["const unsigned bits_ = decay_bits_[first_ >> 3] >> (first_ & 7);"] if form.masked else []),
        *element,
    ]
    decay = "((bits_ >> j_) & 1u ? C(1) : C(0))" if form.masked else "C(1)"
    if width == 1:
        lines += ["const int j_ = 0;", *_calls(kernel, plain, "first_", "{}_p_[j_]", decay)]
        return _frame(kernel, form, lines, ahead)
    loads, work = _fours(kernel, plain, decay)
    return _frame(kernel, form, lines + work, ahead + loads)


def _list_text(kernel: Kernel, form: Form) -> str:
    plain, element = _element(kernel)
    ahead = [
        "const long long r = 0;",
        f"const int array_ = owner_[i / {form.block_size}];",
        f"const long long* const list_row_ = &list_[0] + {LIST_HEAD + len(plain)}ll * array_;",
        "const long long first_ = 4ll * (i - list_row_[0]), cols_ = list_row_[1];",
        *(
            f"{_const(a)}{_ctype(a)}* const {a.name}_p_ = ({_const(a)}{_ctype(a)}*)list_row_[{n}] + first_;"
            for n, a in enumerate(plain, LIST_HEAD)
        ),
    ]
    loads, work = _fours(kernel, plain, "C(1)")
    return _frame(kernel, form, element + work, ahead + loads)


def _fours(kernel: Kernel, plain: list[Array], decay: str) -> tuple[list[str], list[str]]:
    """Loads of four elements from each `<name>_p_`, and the work on these, or one by one at a row's end."""
    packs = {a.name: f"gpumlp_pack<{_ctype(a)}>" for a in plain}
    loads = [
        f"{a.name}_v_ = *reinterpret_cast<const {packs[a.name]}*>({a.name}_p_);"
        for a in plain
        if a.role != "out"
    ]
    ahead = ["const bool whole_ = i < count_ && first_ + 4 <= cols_;"]
    ahead += [f"{packs[a.name]} {a.name}_v_;" for a in plain]
    ahead += ["if (whole_) {", *loads, "}"] if loads else []
    return ahead, [
        "if (whole_) {",
        "#pragma unroll",
        "for (int j_ = 0; j_ < 4; ++j_) {",
        # `|`, not `+`: the compiler sees that c >> 2 is the same for all, and draws one Philox block
        *_calls(kernel, plain, "first_ | j_", "{}_v_.v[j_]", decay),
        "}",
        *(
            f"*reinterpret_cast<{packs[a.name]}*>({a.name}_p_) = {a.name}_v_;"
            for a in plain
            if a.role != "in"
        ),
        "} else {",
        "#pragma unroll 1",
        "for (int j_ = 0; first_ + j_ < cols_; ++j_) {",
        *_calls(kernel, plain, "first_ + j_", "{}_p_[j_]", decay),
        "}",
        "}",
    ]


def _row_text(kernel: Kernel, form: Form) -> str:
    plain = [a for a in kernel.arrays if not a.role.startswith("raw")]
    lines = [
        "const int lane_ = (int)i & (TEAM_ - 1);",
        "const long long r = i / TEAM_;",
        *(f"{_const(a)}{_ctype(a)}* const {a.name} = {_start(a)} + r * ld_{a.name};" for a in plain),
        kernel.body,
    ]
    return _frame(kernel, form, lines)


def _strided_text(kernel: Kernel, form: Form) -> str:
    plain, element = _element(kernel)
    lines = ["const long long r = 0, k = 0;", *_pointers(list(kernel.arrays)), *element]
    return "\n".join([*lines, *_calls(kernel, plain, "i", "{}_", "C(1)")])
