"""Updates of many arrays in three launches: the norm of all gradients, the factor on them, the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np

from gpumlp.backends.cuda.arrays import Staging
from gpumlp.backends.cuda.kernels import Call, Kernels, arguments, pointer
from gpumlp.backends.cuda.preamble import HALF
from gpumlp.backends.cuda.text import LIST_HEAD, Form
from gpumlp.backends.lists import Part
from gpumlp.kernels.rows import CLIP
from gpumlp.kernels.updates import FACTOR, LIST_SQUARES, PLACE

__all__ = ["ListSteps"]

_LEAST = 256  # elements of `partial`: then all sums over it are one compiled kernel
_THREADS = 256
_CHUNKS, _CHUNK = 4096, 2048  # so many pieces of a list at most, but for its arrays; so long at least


@dataclass
class _Launches:
    """A part's calls, and where its tables of addresses are."""

    update: Call
    squares: Call | None
    updates: np.ndarray
    places: np.ndarray
    free_at: int


class ListSteps:
    """See `Backend.list_steps`."""

    def __init__(
        self,
        kernels: Kernels,
        staging: Staging,
        pool: Any,
        parts: Sequence[Part],
        factor: str,
        counters: Any,
        tables: dict[str, Any],
        columns: Sequence[str],
    ) -> None:
        self._kernels, self._staging, self._pool = kernels, staging, pool
        self._counters, self._tables, self._columns = counters, tables, columns
        self._real = np.dtype(parts[0].compute)
        sizes = [[a.size for a in part.grads] for part in parts]
        self._chunk = max(_CHUNK, -(-sum(map(sum, sizes)) // _CHUNKS))
        rows = [sum(-(-n // self._chunk) for n in each) for each in sizes]
        self._partial = cupy.zeros(max(_LEAST, sum(rows)), self._real)
        self._clip_scale, self._one = cupy.zeros(1, self._real), cupy.ones(1, self._real)
        self._words = np.zeros(sum(self._length(part) for part in parts), np.int64)
        self._sent = self._memory(self._words.shape, np.int64)
        self._launches, at, row = [], 0, 0
        for part, n_rows in zip(parts, rows, strict=True):
            stop = at + self._length(part)
            self._launches.append(self._made(part, at, stop, self._partial[row:] if factor else None))
            at, row = stop, row + n_rows
        self._factor = self._factor_call(factor) if factor or counters is not None else None
        self._last: list[int] | None = None
        self.scale: Any = None

    def _memory(self, shape: tuple[int, ...], dtype: Any) -> cupy.ndarray:
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        return cupy.ndarray(shape, dtype, memptr=self._pool.malloc(max(1, size)))

    @staticmethod
    def _width(part: Part) -> int:
        return LIST_HEAD + len(part.members[0]) + 1 + (part.decay is not None)  # 1: the gradient

    def _length(self, part: Part) -> int:
        return len(part.members) * (self._width(part) + PLACE)

    def _made(self, part: Part, at: int, stop: int, partial: Any) -> _Launches:
        kernel, sizes = part.kernel, [a.size for a in part.grads]
        plan = self._counters is not None
        form = Form("list", part.stored, 4, plan, part.decay is not None)
        function, text = self._kernels.function(kernel, form)
        names = [a.name for a in kernel.arrays if not a.role.startswith("raw")]
        blocks = [-(-n // (4 * text.block_size)) for n in sizes]
        starts = (np.cumsum([0, *blocks]) * text.block_size).tolist()
        middle = at + len(sizes) * self._width(part)
        updates = self._words[at:middle].reshape(len(sizes), -1)
        for row, start, n, member in zip(updates, starts, sizes, part.members, strict=False):
            row[:LIST_HEAD] = start, n
            for place, name in enumerate(names, LIST_HEAD):
                row[place] = 0 if name == "g" else member[name].data.ptr
        if part.decay is not None:
            updates[:, -1] = part.decay
        places = self._words[middle:stop].reshape(len(sizes), PLACE)
        given: dict[str, Any] = {"count_": starts[-1], "list_": self._sent[at:middle]}
        given["owner_"] = self._owners(blocks)
        given |= {"clip_scale_": self._clip_scale} | part.scalars | dict.fromkeys(kernel.stepped, 0.0)
        if plan:
            table = self._tables[part.compute]
            given |= {"late_": 1, "ticker_": -1, "counters_": pointer(self._counters, np.int64)}
            given |= {"table_": pointer(table, table.dtype), "table_width_": table.shape[1]}
            given |= {f"{name}_at_": self._columns.index(name) for name in kernel.stepped}
        update = Call(function, text, arguments(text, given), starts[-1])
        squares = None
        if partial is not None:
            squares = self._squares_call(part, places, self._sent[middle:stop], partial)
        return _Launches(update, squares, updates, places, LIST_HEAD + names.index("g"))

    def _owners(self, counts: Sequence[int]) -> cupy.ndarray:
        host = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        owners = self._memory(host.shape, np.int32)
        self._staging.send(owners, host, cupy.cuda.get_current_stream())
        return owners

    def _squares_call(self, part: Part, places: np.ndarray, sent: Any, partial: Any) -> Call:
        sizes = [a.size for a in part.grads]
        rows = [-(-n // self._chunk) for n in sizes]
        places[:, 0], places[:, 1] = np.cumsum([0, *rows[:-1]]), sizes
        form = Form("row", part.gradient, _THREADS)
        function, text = self._kernels.function(LIST_SQUARES, form)
        given = {"count_": _THREADS * sum(rows), "cols_": self._chunk, "chunk": self._chunk}
        # tells the type of the gradients; it is not read
        given["kind_"] = pointer(partial, "uint16" if part.gradient in HALF else part.gradient)
        given |= {"places_": sent, "member_": self._owners(rows), "partial_": pointer(partial, partial.dtype)}
        return Call(function, text, arguments(text, given), given["count_"])

    def _factor_call(self, factor: str) -> Call:
        arrays = {"partial": self._partial, "clip_scale": self._clip_scale}
        if factor == "clip" and self._counters is None:
            return self._kernels.bind(CLIP, arrays, {"limit": 1.0}, 1, self._partial.size)
        arrays |= {"scale": self._one, "counters": self._counters}
        rows = max(len(table) for table in self._tables.values())
        scalars = {"limit": 1.0, "last": rows, "guarded": int(factor == "guard")}
        return self._kernels.bind(FACTOR, arrays, scalars, 1, self._partial.size)

    def ready(self, grads: Sequence[int]) -> bool:
        """Whether the gradients' addresses are those of the last step."""
        return grads == self._last

    def begin(self, grads: list[int], limit: float, scale: Any, stepped: Sequence[dict[str, float]]) -> None:
        """The launches before the updates.

        Parameters
        ----------
        grads : list of int
            Addresses of the gradients, part after part.
        limit : float
            Of their norm; may be infinite.
        scale : array (1,), optional
            By which they are divided.
        stepped : sequence of dict
            For each part, where steps are counted on the host.
        """
        if grads != self._last:
            self._last, at = None, 0
            for each in self._launches:
                addresses = grads[at : at + len(each.updates)]
                each.updates[:, each.free_at] = each.places[:, 2] = addresses
                at += len(addresses)
            self._staging.send(self._sent, self._words, cupy.cuda.get_current_stream())
            self._last = grads
        for each in self._launches:
            if each.squares is not None:
                self._kernels.run(each.squares)
        if self._factor is not None:
            call = self._factor
            call.set(call.places["limit"], limit)
            if "scale_" in call.places:
                self.scale = self._one if scale is None else scale
                call.set(call.places["scale_"], pointer(self.scale, self.scale.dtype))
            self._kernels.run(call)
        for each, values in zip(self._launches, stepped, strict=False):
            for name, value in values.items():
                each.update.set(each.update.places[name], value)

    def update(self, number: int) -> None:
        """The launch of part `number`."""
        self._kernels.run(self._launches[number].update)
