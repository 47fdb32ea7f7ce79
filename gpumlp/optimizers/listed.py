"""Updates of lists of arrays on a CUDA device by a few launches, which may be in a graph of the caller's."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields
from typing import Any

import numpy as np

from gpumlp.backends.accesses import extent
from gpumlp.backends.lists import Part
from gpumlp.optimizers.arrays import Given, Pairs, apart, open_number, state_dtype
from gpumlp.optimizers.options import Options

__all__ = ["Listed", "check_not_captured"]

_ALIGNED = 16  # bytes
_FIRST_ROWS, _MOST_ROWS = 1024, 1 << 20  # of a step table
_FIRST = (
    "update() is being captured into a CUDA graph with arrays or settings that it has not seen; call it once "
    "with the same arrays, options and hyper-parameters before the capture (that is a step like any other)"
)
_CONTIGUOUS = (
    "cannot be used in a captured update: expected a C-contiguous array that begins at a multiple of 16 "
    "bytes and shares no memory with a parameter"
)


class Listed:
    """Launches, step tables and counter of an optimiser, made when they are first needed.

    Parameters
    ----------
    backend : Backend
        That of a CUDA device.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        #: int64 (2,) on the device, if steps are counted there: see `FACTOR`
        self.counters: Any = None
        self._steps: Any = None
        self._tables: dict[str, Any] = {}
        self._steps_key: Any = None
        self._tables_key: Any = None
        self._scale: tuple[Any, Any] = (None, None)
        self._captured: list[Any] = []  # what graphs of the caller's read

    def done(self) -> int:
        """Steps done, read from the device."""
        return int(self.backend.to_numpy(self.counters)[0])

    def count(self, t: int) -> None:
        """Count on the device, from `t` on."""
        if self.counters is None:
            self.counters = self.backend.zeros(2, np.int64)
            self.backend.copy(self.counters, np.array([t, max(1, t)], np.int64))

    def update(self, optimizer: Any, pairs: Pairs, options: Options) -> None:
        """The next step."""
        with self.backend.work(captured=self.counters is not None) as stream:
            captured = _is_captured(stream)
            grads, copied = apart(pairs, options.zero, _direct)
            if captured and copied:
                raise ValueError(f"grads[{copied[0]}] {_CONTIGUOUS}")
            copies = [_copy(f"params[{n}]", p, captured) for n, (p, _) in enumerate(pairs)]
            groups = _groups(pairs)
            steps, parts = self._prepared(optimizer, pairs, grads, copies, groups, options, captured)
            addresses = [grads[n].data.ptr for group in groups for n in group]
            if captured and not steps.ready(addresses):
                raise RuntimeError(_FIRST)
            limit = math.inf if options.clip_norm is None else options.clip_norm
            scale = self._scale_array(options.scale, parts[0].compute, captured)
            steps.begin(addresses, limit, scale, self._stepped(optimizer, parts, options))
            for number, group in enumerate(groups):
                moved = [(copies[n], pairs[n][0].array) for n in group if copies[n] is not None]
                for copy, p in moved:
                    copy[...] = p
                steps.update(number)
                for copy, p in moved:
                    p[...] = copy
            for n in copied if options.zero else ():
                pairs[n][1].array.fill(0)
            if captured:
                self._captured.append((steps, parts, self._tables, scale, self.counters))

    def _prepared(
        self,
        optimizer: Any,
        pairs: Pairs,
        grads: list[Any],
        copies: list[Any],
        groups: list[list[int]],
        options: Options,
        captured: bool,
    ) -> tuple[Any, list[Part]]:
        """The launches, those of the last step if nothing has changed."""
        guard, clip = options.scale is not None, options.clip_norm is not None
        factor = "guard" if guard else "clip" if clip else ""
        parts = []
        for group in groups:
            p, g = pairs[group[0]]
            more = {"half": p.half, "narrow": g.half, "zero": options.zero}
            kernel = optimizer.kernel(clip=clip and not guard, guard=guard, **more)
            compute = state_dtype(p.array).name
            stored = p.kind if p.half else g.kind if g.half else compute
            members = []
            for n in group:
                entry, target = optimizer.state[n], pairs[n][0].array if copies[n] is None else copies[n]
                own = {"p": entry["master"], "p_half": target} if p.half else {"p": target}
                members.append(own | {name: entry[name] for name in optimizer.arrays()})
            decay = [options.decay[n] for n in group]
            masked = decay if kernel.masked and not all(decay) else None
            given = [grads[n] for n in group]
            parts.append(
                Part(kernel, optimizer.scalars(kernel), compute, stored, g.kind, given, members, masked)
            )
        computes = tuple(sorted({part.compute for part in parts}))
        if factor and len(computes) > 1:
            raise TypeError(
                "clip_norm and scale are for one norm of all gradients; some are float64 and others are not"
            )
        tables: dict[str, Any] = {}
        if self.counters is not None:
            tables = self._table(optimizer, options, computes, captured)
        key = (
            factor,
            tables and id(tables),
            [(part.kernel, part.stored, part.gradient, part.scalars, part.decay) for part in parts],
            [[a.data.ptr for a in member.values()] for part in parts for member in part.members],
            [a.shape for part in parts for a in part.grads],
        )
        if key != self._steps_key:
            if captured:
                raise RuntimeError(_FIRST)
            columns = list(optimizer.step_values(1, 0.0))
            self._steps_key = None
            self._steps = self.backend.list_steps(parts, factor, self.counters, tables, columns)
            self._steps_key = key
        return self._steps, parts

    def _table(self, optimizer: Any, options: Options, computes: tuple[str, ...], captured: bool) -> Any:
        """Per-step values of all steps, by type; the arrays stay where a change leaves their shape."""
        fixed = tuple(getattr(optimizer, f.name) for f in fields(optimizer) if f.name != "lr")
        key = fixed, options.lr, options.schedule, computes
        if key == self._tables_key:
            return self._tables
        if captured:
            raise RuntimeError(_FIRST)
        values = _step_table(optimizer, options, np.dtype(computes[0] if len(computes) == 1 else "float64"))
        self._tables_key = None
        if [(name, table.shape) for name, table in self._tables.items()] != [
            (c, values.shape) for c in computes
        ]:
            self._tables = {name: self.backend.empty(values.shape, name) for name in computes}
        for table in self._tables.values():
            self.backend.copy(table, values.astype(table.dtype))
        self._tables_key = key
        return self._tables

    def _stepped(self, optimizer: Any, parts: list[Part], options: Options) -> list[dict[str, float]]:
        """For each part the step's values, where steps are counted on the host."""
        if self.counters is not None:
            return []
        t = optimizer.t + 1
        values = optimizer.step_values(t, float(options.rates(np.array([t]))[0]))
        return [{name: float(values[name]) for name in part.kernel.stepped} for part in parts]

    def _scale_array(self, scale: Any, compute: str, captured: bool) -> Any:
        if scale is None:
            return None
        if not isinstance(scale, float):
            array = open_number("scale", scale)
            if not isinstance(array, np.ndarray):
                if array.device.id != self.backend.number:
                    raise TypeError(
                        f"scale is on cuda:{array.device.id}, the parameters are on {self.backend.device}"
                    )
                if array.dtype == compute:
                    return array
                if captured:
                    raise TypeError(f"scale is {array.dtype}; a captured update needs {compute}")
                return array.astype(compute)
            scale = float(array.reshape(()))
        if self._scale[0] != (scale, compute):
            if captured:
                raise RuntimeError(_FIRST)
            held = self.backend.asarray(np.array([scale], compute))
            self._scale = (scale, compute), held
        return self._scale[1]


def check_not_captured(backend: Any) -> None:
    """RuntimeError if the current stream is being captured: a first update makes arrays."""
    with backend.active():
        if _is_captured(backend.xp.cuda.get_current_stream()):
            raise RuntimeError(_FIRST)


def _is_captured(stream: Any) -> bool:
    return stream.ptr > 1 and stream.is_capturing()


def _step_table(optimizer: Any, options: Options, dtype: np.dtype) -> np.ndarray:
    """Per-step values (n_steps, n_columns) in `dtype`: until they stay the same, or for 2^20 steps."""

    def values(t: np.ndarray) -> np.ndarray:
        columns = optimizer.step_values(t, options.rates(t)).values()
        with np.errstate(over="ignore"):
            return np.stack([np.broadcast_to(c, t.shape) for c in columns], axis=1).astype(dtype)

    n = _FIRST_ROWS
    while True:
        table = values(np.arange(1, n + 1))
        settled = (values(n * 2 ** np.arange(1, 31)) == table[-1]).all()
        if settled or n >= _MOST_ROWS:
            break
        n *= 4
    different = np.nonzero((table != table[-1]).any(axis=1))[0]
    return table[: int(different[-1]) + 2 if len(different) else 1]


def _direct(array: Any) -> bool:
    """Whether launches over lists may read and write it where it is."""
    return bool(array.flags.c_contiguous and array.data.ptr % _ALIGNED == 0)


def _copy(what: str, p: Given, captured: bool) -> Any:
    """An array for the parameter's values, or None if it needs none."""
    if _direct(p.array):
        return None
    if captured:
        raise ValueError(f"{what} {_CONTIGUOUS}")
    return p.array.copy(order="C")


def _groups(pairs: Pairs) -> list[list[int]]:
    """Numbers of the arrays that a launch may update together: of equal types, without shared memory."""
    numbers = [n for n, (p, _) in enumerate(pairs) if p.array.size]
    spans = sorted(extent(pairs[n][0].array) for n in numbers)
    if any(a[1] > b[0] for a, b in itertools.pairwise(spans)):
        return [[n] for n in numbers]
    groups: dict[tuple[str, str], list[int]] = {}
    for n in numbers:
        groups.setdefault((pairs[n][0].kind, pairs[n][1].kind), []).append(n)
    return list(groups.values())
