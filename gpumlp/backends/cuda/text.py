"""From a `Kernel` to the text of a `cupy.ElementwiseKernel`.  Does not import CuPy: reports need no GPU.

Four forms:

* ``map``: all arrays are raw; a thread handles `width` (1 or 4) consecutive columns of one row: vector loads,
  the body on locals, vector stores.  Everything is read once before and stored once after, so the compiler
  need not assume that arrays overlap.
* ``list``: as ``map``, of width 4, over many C-contiguous arrays in one launch.  A block works on one of
  them: `owner_` has its number, that row of `list_` its first thread, its size, the kernel's addresses and,
  if masked, its `decay`.  Raw arrays are the same for all.
* ``row``: `width` threads (1, 8, 32 or 256) share a row; sums and maxima in a fixed order, without atomics.
* ``strided``: CuPy's own indexing, one thread per element, for arrays of any strides.

In all but the last the launch has at least one thread, and `count_` says how many have work: with 0 a launch
only compiles and loads the kernel.  In a plan, `late_` is 0 in the first kernel of a step and 1 in all others
(see `base.Launch.tick`), and thread number `ticker_` advances the counters, -1 for none.  (As a condition on
`i`, not a flag: for a flag the compiler makes the whole loop twice.)

With members, the rows of all are counted through: `member_` is the one that a thread works on, `md_<name>`
the distance of two members in an array, and everything else, `r` among it, is that of the member.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpumlp.backends.cuda.preamble import CTYPES, HALF, MEMBERS, PACK, TEAM
from gpumlp.kernels.kernel import FIXED, Array, Kernel

__all__ = ["LIST_HEAD", "Form", "Source", "array_dtype", "needs_stride", "source", "team_size"]

LIST_HEAD = 2  # numbers in a row of `list_` before the addresses


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
        `decay` comes from a bit per column (list: from `list_`), else it is 1.
    members : bool
        Several launches as one (map and row).
    own : tuple of str
        Scalars (and stepped values given by value) of which ``<name>_of_`` has one for each member.
    """

    kind: str
    dtype: str
    width: int = 1
    plan: bool = False
    masked: bool = False
    members: bool = False
    own: tuple[str, ...] = ()

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
    stored = "uint16" if form.dtype in HALF else form.dtype
    return {"T": stored, "C": form.compute}.get(array.ctype, array.ctype)


def needs_stride(kernel: Kernel, array: Array) -> bool:
    """Whether ``ld_<name>`` is a parameter (map and row forms)."""
    text = kernel.per_row + kernel.body
    return not array.role.startswith("raw") or re.search(rf"\bld_{array.name}\b", text) is not None


def source(kernel: Kernel, form: Form) -> Source:
    """Text and parameter lists of `kernel` in the given form.

    Raises
    ------
    ValueError
        A form that the kernel does not have.
    """
    if form.dtype not in CTYPES:
        raise ValueError(f"{kernel.name}: dtype {form.dtype}; CUDA kernels exist for {', '.join(CTYPES)}")
    if kernel.rowwise != (form.kind == "row"):
        raise ValueError(f"{kernel.name} is a {'row' if kernel.rowwise else 'map'} kernel, not {form.kind}")
    if form.kind == "strided" and form.dtype in HALF:
        raise ValueError(f"{kernel.name}: dtype {form.dtype}; arrays of any strides are float32 or float64")
    if form.kind == "row" and kernel.masked:
        raise ValueError(f"{kernel.name}: a row kernel cannot be masked")
    if form.members and form.kind not in ("map", "row"):
        raise ValueError(f"{kernel.name}: the form {form.kind} has no members")
    make = {"map": _map_text, "list": _list_text, "row": _row_text, "strided": _strided_text}[form.kind]
    types = f"typedef {CTYPES[form.dtype]} T;\ntypedef {CTYPES[form.compute]} C;\n"
    types = HALF.get(form.dtype, "") + types
    extra = {"row": TEAM.format(team=form.width), "strided": ""}.get(form.kind, PACK)
    extra += MEMBERS if form.members else ""
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
        inputs += [("uint32", "rows_")] if form.members else []
    for array in kernel.arrays:
        if form.kind == "list" and not array.role.startswith("raw"):
            continue
        prefix = "raw " if array.role.startswith("raw") else raw
        side = inputs if array.role in ("in", "raw") else outputs
        side.append((prefix + array_dtype(array, form), f"{array.name}_"))
        if form.kind != "strided" and needs_stride(kernel, array):
            inputs.append(("int64", f"ld_{array.name}"))
        if form.members:
            inputs.append(("int64", f"md_{array.name}"))
    types = {"C": form.compute, "int64": "int64"}
    inputs += [_value(form, types[s.ctype], s.name) for s in kernel.constants]
    if form.plan:
        inputs += [("int32", "late_"), ("int32", "ticker_")]
        outputs.append(("raw int64", "counters_"))
        if kernel.stepped:
            inputs += [("raw " + form.compute, "table_"), ("int64", "table_width_")]
            inputs += [("int64", "member_width_")] if form.members else []
            inputs += [("int32", f"{name}_at_") for name in kernel.stepped]
    else:
        inputs += [_value(form, form.compute, name) for name in kernel.stepped]
    if form.masked and form.kind != "list":
        inputs.append(("raw uint8", "decay_bits_"))
    return tuple(inputs), tuple(outputs)


def _value(form: Form, ctype: str, name: str) -> tuple[str, str]:
    return (f"raw {ctype}", f"{name}_of_") if name in form.own else (ctype, name)


def _ctype(array: Array) -> str:
    return FIXED.get(array.ctype, array.ctype)


def _const(array: Array) -> str:
    return "const " if array.role in ("in", "raw") else ""


def _start(array: Array) -> str:
    """Address of the first element; T may be another type of 16 bits than the parameter's."""
    address = f"&{array.name}_[0]"
    return f"({_const(array)}T*)({address})" if array.ctype == "T" else address


def _at(array: Array, form: Form, place: str) -> str:
    """Address of the element at `place` of the (member's) array."""
    if not form.members:
        return f"{_start(array)} + {place}"
    return f"{_start(array)} + gpumlp_opaque(member_ * md_{array.name} + {place})"


def _pointers(arrays: list[Array], form: Form) -> list[str]:
    """Raw arrays under their own names; the address is taken before the offset is added, because CuPy's index
    may have 32 bits."""
    return [
        f"{_const(a)}{_ctype(a)}* const {a.name} = {_at(a, form, '0') if form.members else _start(a)};"
        for a in arrays
        if a.role.startswith("raw")
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
            place = "k * table_width_" + (" + member_ * member_width_" if form.members else "")
            values = [f"const C* const values_ = &table_[0] + {place};"]
            values += [f"const C {name} = values_[{name}_at_];" for name in kernel.stepped]
    types = {s.name: "C" if s.ctype == "C" else "long long" for s in kernel.constants}
    values += [f"const {types.get(name, 'C')} {name} = {name}_of_[member_];" for name in form.own]
    pointers = _pointers(list(kernel.arrays), form)
    return "\n".join([*ahead, *head, "if (i < count_) {", *values, *pointers, *lines, "}", *tail])


def _element(kernel: Kernel) -> tuple[list[Array], list[str]]:
    """The body as a local function of column, inputs by value, outputs by reference and `decay`."""
    plain = [a for a in kernel.arrays if not a.role.startswith("raw")]
    parameters = ["const long long c"]
    parameters += [f"C {a.name}" if a.role == "in" else f"C& {a.name}" for a in plain]
    parameters += ["const C decay"] if kernel.masked else []
    return plain, [kernel.per_row, f"auto element_ = [&]({', '.join(parameters)}) {{", kernel.body, "};"]


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
        *_row(form, "row_"),
        f"const long long first_ = {width}ll * (item_ - row_ * groups_);",
        *(
            f"{_const(a)}{_ctype(a)}* const {a.name}_p_ = {_at(a, form, f'r * ld_{a.name} + first_')};"
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


def _row(form: Form, row: str) -> list[str]:
    """`r`, from the number of the row among all."""
    if not form.members:
        return [f"const long long r = {row};"]
    return [
        f"const unsigned among_ = {row};",
        "const long long member_ = among_ / rows_, r = among_ - (unsigned)member_ * rows_;",
    ]


def _list_text(kernel: Kernel, form: Form) -> str:
    plain, element = _element(kernel)
    behind = LIST_HEAD + len(plain)
    ahead = [
        "const long long r = 0;",
        f"const int array_ = owner_[i / {form.block_size}];",
        f"const long long* const list_row_ = &list_[0] + {behind + form.masked}ll * array_;",
        "const long long first_ = 4ll * (i - list_row_[0]), cols_ = list_row_[1];",
        *(
            f"{_const(a)}{_ctype(a)}* const {a.name}_p_ = ({_const(a)}{_ctype(a)}*)list_row_[{n}] + first_;"
            for n, a in enumerate(plain, LIST_HEAD)
        ),
    ]
    loads, work = _fours(kernel, plain, "decay_" if form.masked else "C(1)")
    decay = [f"const C decay_ = C(list_row_[{behind}]);"] if form.masked else []
    return _frame(kernel, form, decay + element + work, ahead + loads)


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
        *([] if form.members else _row(form, "i / TEAM_")),
        *(f"{_const(a)}{_ctype(a)}* const {a.name} = {_at(a, form, f'r * ld_{a.name}')};" for a in plain),
        kernel.body,
    ]
    return _frame(kernel, form, lines, _row(form, "(unsigned)(i / TEAM_)") if form.members else [])


def _strided_text(kernel: Kernel, form: Form) -> str:
    plain, element = _element(kernel)
    lines = ["const long long r = 0, k = 0;", *_pointers(list(kernel.arrays), form), *element]
    return "\n".join([*lines, *_calls(kernel, plain, "i", "{}_", "C(1)")])
