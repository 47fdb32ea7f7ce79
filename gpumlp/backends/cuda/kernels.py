"""Kernels of the CuPy executor: compiled once per form, and bound to their arguments."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import cupy
import numpy as np

from gpumlp.backends.contract import real_types
from gpumlp.backends.cuda.arrays import Staging
from gpumlp.backends.cuda.text import (
    LIST_HEAD,
    Form,
    Source,
    array_dtype,
    needs_stride,
    source,
    team_size,
)
from gpumlp.kernels.kernel import Kernel

__all__ = [
    "Bound",
    "BoundList",
    "Call",
    "Kernels",
    "Segments",
    "arguments",
    "decay_bits",
    "pointer",
    "written_spans",
]

Segments = Sequence[tuple[int, int, float]]
_ITEM_LIMIT = 1 << 32  # threads of a map kernel: their number has 32 bits


class Call:
    """A kernel with its arguments, ready to be launched on the current stream."""

    def __init__(self, function: Any, text: Source, arguments: list[Any], size: int) -> None:
        self.function, self._arguments, self._size = function, arguments, size
        self._block, self.name = text.block_size, text.name
        self.dtypes = [np.dtype(ctype.removeprefix("raw ")) for ctype, _ in (*text.inputs, *text.outputs)]
        self.places = {name: n for n, (_, name) in enumerate((*text.inputs, *text.outputs))}
        nothing = {"count_": 0, "ticker_": -1}
        self._idle = {
            n: np.dtype(ctype).type(nothing[name])
            for n, (ctype, name) in enumerate(text.inputs)
            if name in nothing
        }

    def set(self, place: int, value: Any) -> None:
        """Another value for the argument number `place`: an array, or a number."""
        self._arguments[place] = value if isinstance(value, cupy.ndarray) else self.dtypes[place].type(value)

    def __call__(self) -> None:
        self.function(*self._arguments, size=self._size, block_size=self._block)

    def load(self) -> None:
        """Compile and load the kernel: a launch in which no thread has work."""
        idle = [self._idle.get(n, value) for n, value in enumerate(self._arguments)]
        self.function(*idle, size=self._block, block_size=self._block)


class Bound:
    """See `Backend.bind`: a call whose arrays are known by their addresses only.

    Parameters
    ----------
    call : Call
    arrays : dict
        C-contiguous, of one shape.
    free : str
        The array that may be another one each time.
    stepped : sequence of str
        Names of the values that change.
    work : callable
        `CupyBackend.work`, as `around`.
    """

    def __init__(
        self, call: Call, arrays: dict[str, Any], free: str, stepped: Sequence[str], work: Callable[[], Any]
    ) -> None:
        self._call, self.around = call, work
        self.addresses = {name: array.data.ptr for name, array in arrays.items()}
        self.size, self.bytes = arrays[free].size, arrays[free].nbytes
        for name, array in arrays.items():
            call.set(call.places[f"{name}_"], _unowned(array))
        self._free_at = call.places[f"{free}_"]
        self._values_at = [call.places[name] for name in stepped]
        array = arrays[free]
        self.dtype, self._shape = array.dtype, array.shape
        self._device = array.device.id
        self.aligned = all(a.data.ptr % 16 == 0 for a in arrays.values())
        self._others = [a.data.ptr for name, a in arrays.items() if name != free]
        self._last = array.data.ptr

    def place(self, array: Any, written: Any) -> Any:
        if type(array) is not cupy.ndarray or array.dtype != self.dtype or array.shape != self._shape:
            return None
        address = array.data.ptr
        if array.data.device_id != self._device or not array.flags.c_contiguous:
            return None
        if self.aligned and address % 16:
            return None
        if address != self._last and any(
            -self.bytes < address - other < self.bytes and address != other for other in self._others
        ):
            return None
        return array

    def __call__(self, place: Any, values: Sequence[float]) -> None:
        call = self._call
        address = place.data.ptr
        if address != self._last:
            call.set(self._free_at, _unowned(place))
            self._last = address
        for at, value in zip(self._values_at, values, strict=True):
            call.set(at, value)
        call()


class BoundList:
    """Several `Bound` calls of one kernel as one launch.

    Parameters
    ----------
    kernel : Kernel
    kernels : Kernels
    members : sequence of Bound
        Of one dtype, 16-byte aligned; what they write does not overlap.
    free : str
        The array that may be another one each time.
    values : dict
        Scalars.
    pool : cupy.cuda.MemoryPool
        For the table of addresses.  Memory of the pool in use could be given to other work, on another
        stream, while a launch still reads it.
    staging : Staging
        Through which the table is sent, when addresses are others than before.
    """

    def __init__(
        self,
        kernel: Kernel,
        kernels: Kernels,
        members: Sequence[Bound],
        free: str,
        values: dict[str, float],
        pool: Any,
        staging: Staging,
    ) -> None:
        function, text = kernels.function(kernel, Form("list", members[0].dtype.name, 4))
        names = [a.name for a in kernel.arrays]
        blocks = [-(-m.size // (4 * text.block_size)) for m in members]
        starts = (np.cumsum([0, *blocks]) * text.block_size).tolist()
        rows = [
            [start, m.size, *(m.addresses[name] for name in names)]
            for start, m in zip(starts, members, strict=False)
        ]
        owner = np.repeat(np.arange(len(members), dtype=np.int32), blocks)
        self._list, self._free_at = np.array(rows, np.int64), LIST_HEAD + names.index(free)
        self._sent, device_owner = (
            cupy.ndarray(a.shape, a.dtype, memptr=pool.malloc(a.nbytes)) for a in (self._list, owner)
        )
        self._staging = staging
        staging.send(device_owner, owner, cupy.cuda.get_current_stream())
        given: dict[str, Any] = {"count_": starts[-1], "owner_": device_owner, "list_": self._sent}
        given |= dict.fromkeys(kernel.stepped, 0.0) | values
        self._call = Call(function, text, arguments(text, given), starts[-1])
        self._values_at = [self._call.places[name] for name in kernel.stepped]
        self._bytes, self._written = [m.bytes for m in members], written_spans(kernel, members)
        self._last: list[int] | None = None

    def _reads_apart(self, addresses: Sequence[int]) -> bool:
        """Whether no array at `addresses` overlaps what is written for another member."""
        for n, (address, size) in enumerate(zip(addresses, self._bytes, strict=True)):
            # the last one that begins before this array's end
            at = bisect.bisect_left(self._written, (address + size,)) - 1
            while at >= 0 and self._written[at][1] > address:
                if self._written[at][2] != n:  # its own: `Bound.place` has looked
                    return False
                at -= 1
        return True

    def __call__(self, places: Sequence[Any], values: Sequence[float]) -> bool:
        """Whether it could be done."""
        addresses = [place.data.ptr for place in places]
        if addresses != self._last:
            if not self._reads_apart(addresses):
                return False
            self._last = None  # until they are sent
            self._list[:, self._free_at] = addresses
            self._staging.send(self._sent, self._list, cupy.cuda.get_current_stream())
            self._last = addresses
        for at, value in zip(self._values_at, values, strict=True):
            self._call.set(at, value)
        self._call()
        return True


def written_spans(kernel: Kernel, members: Sequence[Bound]) -> list[tuple[int, int, int]]:
    """(first byte, one after the last, number of the member) of all that `members` write, in order."""
    written = [a.name for a in kernel.arrays if a.role != "in"]
    firsts = ((m.addresses[name], m.bytes, n) for n, m in enumerate(members) for name in written)
    return sorted((first, first + size, n) for first, size, n in firsts)


def _unowned(array: Any) -> cupy.ndarray:
    """As `pointer`, but the array's memory may be freed meanwhile."""
    memory = cupy.cuda.UnownedMemory(array.data.ptr, array.nbytes, None, array.device.id)
    return cupy.ndarray((1,), array.dtype, memptr=cupy.cuda.MemoryPointer(memory, 0))


class Kernels:
    """The ElementwiseKernels of one device, made when first used."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._made: dict[tuple[str, str, str, Form], tuple[Any, Source]] = {}
        self._loaded: set[int] = set()
        #: kernel's name -> seconds that compiling and loading took, all of its forms together
        self.seconds: dict[str, float] = {}

    def function(self, kernel: Kernel, form: Form) -> tuple[Any, Source]:
        """The ElementwiseKernel and its text; kernels of equal name and body share it."""
        key = (kernel.name, kernel.per_row, kernel.body, form)
        if key not in self._made:
            text = source(kernel, form)
            function = cupy.ElementwiseKernel(
                text.in_params,
                text.out_params,
                text.operation,
                text.name,
                preamble=text.preamble,
                no_return=True,
            )
            self._made[key] = function, text
        return self._made[key]

    def bind(
        self,
        kernel: Kernel,
        arrays: dict[str, Any],
        values: dict[str, Any],
        rows: int,
        cols: int,
        decay: Any = None,
        plan: dict[str, Any] | None = None,
        members: int | None = None,
        shared: Collection[str] = (),
    ) -> Call:
        """Choose the form and put the arguments in order.

        Parameters
        ----------
        values : dict
            Scalars and, without `plan`, stepped values.
        decay : array of uint8, optional
            See `decay_bits`; None: every element is a weight.
        plan : dict, optional
            Counters, tick, and where the stepped values are.
        members, shared
            See `Launch`.
        """
        dtype = _form_type(kernel, arrays)
        # of an item for each member: distance of two, and the strides of one
        jump = {n: 0 if members is None or n in shared else a.strides[0] for n, a in arrays.items()}
        inner = {n: a.strides if members is None or n in shared else a.strides[1:] for n, a in arrays.items()}
        plain = [a.name for a in kernel.arrays if not a.role.startswith("raw")]
        wide = all(
            arrays[n].data.ptr % 16 == 0 and jump[n] % 16 == 0 and (rows <= 1 or inner[n][0] % 16 == 0)
            for n in plain
        )
        width = team_size(rows, cols) if kernel.rowwise else 4 if wide else 1
        own = _one_each(kernel, values, "float64" if dtype == "float64" else "float32") if members else {}
        kind = "row" if kernel.rowwise else "map"
        form = Form(kind, dtype, width, plan is not None, decay is not None, bool(members), tuple(own))
        function, text = self.function(kernel, form)
        groups, all_rows = max(1, -(-cols // width)), rows * (members or 1)
        count = all_rows * (width if kernel.rowwise else groups) if cols else 0
        if (not kernel.rowwise and count >= _ITEM_LIMIT) or (members and all_rows >= _ITEM_LIMIT):
            raise ValueError(f"{kernel.name}: {all_rows} x {cols} elements; at most {width * _ITEM_LIMIT}")
        given = {"count_": count, "cols_": cols, "groups_": groups, "rows_": rows, "decay_bits_": decay}
        given |= values | {f"{name}_of_": each for name, each in own.items()}
        given.update(plan or {})
        for a in kernel.arrays:
            array, strides = arrays[a.name], inner[a.name]
            given[f"{a.name}_"] = pointer(array, array_dtype(a, form))
            given[f"md_{a.name}"] = jump[a.name] // array.itemsize
            if needs_stride(kernel, a):
                given[f"ld_{a.name}"] = strides[0] // array.itemsize if len(strides) > 1 else 0
        return Call(function, text, arguments(text, given), max(count, width))

    def load(self, call: Call) -> None:
        """Compile and load the kernel of `call`, where no launch has done so."""
        if id(call.function) not in self._loaded:
            self.run(call, call.load)

    def run(self, call: Call, launch: Callable[[], None] | None = None) -> None:
        """Launch `call`; the time that the first launch of a kernel takes is noted."""
        start = time.perf_counter()
        (launch or call)()
        if id(call.function) not in self._loaded:
            self._loaded.add(id(call.function))
            self.seconds[call.name] = self.seconds.get(call.name, 0.0) + time.perf_counter() - start

    def run_strided(self, kernel: Kernel, arrays: dict[str, Any], values: dict[str, Any]) -> None:
        """Run a map kernel at once on arrays of equal shape and any strides."""
        function, text = self.function(kernel, Form("strided", _form_type(kernel, arrays)))
        function(*arguments(text, {**{f"{n}_": a for n, a in arrays.items()}, **values}))


def _form_type(kernel: Kernel, arrays: dict[str, Any]) -> str:
    """T for these arrays; bfloat16 is stored in arrays of uint16, because NumPy has no such type."""
    stored, compute = real_types(kernel, arrays)
    name = (stored or compute or np.dtype(np.float32)).name
    return "bfloat16" if name == "uint16" else name


def _one_each(kernel: Kernel, values: dict[str, Any], compute: str) -> dict[str, cupy.ndarray]:
    """Of `values` those that differ from member to member, on the device."""
    whole = [s.name for s in kernel.constants if s.ctype != "C"]
    return {
        name: cupy.asarray(np.asarray(value).astype(np.int64 if name in whole else compute))
        for name, value in values.items()
        if np.ndim(value)
    }


def arguments(text: Source, given: dict[str, Any]) -> list[Any]:
    """`given` in the order of the parameters, scalars with the parameters' types."""
    return [
        given[name] if isinstance(given[name], cupy.ndarray) else np.dtype(ctype).type(given[name])
        for ctype, name in (*text.inputs, *text.outputs)
    ]


def pointer(array: Any, dtype: Any) -> cupy.ndarray:
    """The array's address as an array of one element: CuPy compiles per number of dimensions and layout."""
    return cupy.ndarray((1,), dtype, memptr=array.data)


def decay_bits(segments: Segments, cols: int) -> np.ndarray:
    """One bit per column, 1 for weights, lowest bit first: uint8 of a multiple of 4 bytes."""
    flags = np.zeros(-(-cols // 32) * 32, np.uint8)
    for start, stop, decay in segments:
        flags[start:stop] = decay != 0
    return np.packbits(flags, bitorder="little")
