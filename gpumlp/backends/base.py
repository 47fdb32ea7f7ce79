"""What an executor must do.

Nothing here imports CuPy.  A backend owns no training state: it makes arrays, runs a kernel at once
(`launch`), or turns a list of operations into something that replays it (`record`).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import numpy as np

from gpumlp.backends.arrays import device_of
from gpumlp.backends.contract import Extents, check_stepped, of_member, real_types
from gpumlp.backends.lists import Part
from gpumlp.backends.operations import AllReduce, Gemm, Launch, Op
from gpumlp.backends.steps import Steps
from gpumlp.kernels.kernel import Kernel

__all__ = ["Backend", "Plan", "Steps", "on_device"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _check_table(op: Launch, steps: Steps) -> None:
    """Raise unless `steps` has the per-step values of `op`, in its type."""
    if not op.kernel.stepped:
        return
    missing = [name for name in op.kernel.stepped if name not in steps.columns]
    if missing:
        raise ValueError(f"{op.kernel.name}: the step table has columns {list(steps.columns)}, not {missing}")
    if op.members != steps.members:
        raise ValueError(
            f"{op.kernel.name}: members={op.members}; the step table has members={steps.members}"
        )
    compute = real_types(op.kernel, op.arrays)[1]
    if compute is not None and steps.table.dtype != compute:
        raise TypeError(f"{op.kernel.name} computes in {compute}, the step table is {steps.table.dtype}")


class Plan(ABC):
    """A recorded list of operations.  Owns a reference to every buffer that it touches."""

    @abstractmethod
    def run(self, n: int = 1) -> None:
        """Run the list `n` times.  May return before a device has finished (see `Backend.synchronize`)."""


class Backend(ABC):
    """An executor on one device.

    Attributes
    ----------
    name : str
        "numpy", "native" or "cuda".
    device : str
        "cpu" or "cuda:<number>".
    xp : module
        numpy or cupy.
    """

    name: str
    device: str
    xp: Any

    @property
    def lanes(self) -> int:
        """How many threads of Python gain from running plans of their own side by side."""
        return 1

    def batch(self) -> Any:
        """What plans can be put into, to be run later side by side (see `Lane.later`); None if that gains
        nothing here."""
        return None

    @abstractmethod
    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Uninitialised C-contiguous array, 64-byte aligned at least."""

    @abstractmethod
    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """C-contiguous array of zeros, 64-byte aligned at least."""

    @abstractmethod
    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """`x` as a C-contiguous array of this device; not copied if it is one already."""

    @abstractmethod
    def to_numpy(self, x: Any) -> np.ndarray:
        """Copy of `x` on the host; waits until it is computed."""

    @abstractmethod
    def copy(self, dst: Any, src: Any) -> None:
        """dst[...] = src, converted, where `src` is on the host or on this device; same shape, both
        contiguous."""

    def launch(
        self,
        kernel: Kernel,
        arrays: dict[str, Any],
        scalars: dict[str, Any],
        stepped: dict[str, Any] | None = None,
        *,
        rows: int,
        cols: int,
        segments: Sequence[tuple[int, int, float]] | None = None,
        extents: Extents | None = None,
        members: int | None = None,
        shared: Collection[str] = (),
    ) -> None:
        """Run one kernel at once with k = 0; `stepped` values are given by value, of members one for all or
        one for each.  See `Launch`."""
        op = Launch(
            kernel, arrays, scalars, rows, cols, segments, extents=extents, members=members, shared=shared
        )
        check_stepped(kernel, stepped or {}, members)
        self.at_once(op, {name: (stepped or {})[name] for name in kernel.stepped})

    def at_once(self, op: Launch, stepped: dict[str, Any] | None = None) -> None:
        """`launch` of an operation that was made; `stepped` are values of exactly those names that it has."""
        self._check_home(op.kernel.name, op.arrays)
        if op.rows > 0 and op.cols > 0:
            (self._launch if op.members is None else self._launch_members)(op, stepped or {})

    @abstractmethod
    def _launch(self, op: Launch, stepped: dict[str, float]) -> None:
        """`launch` of checked arrays."""

    def _launch_members(self, op: Launch, stepped: dict[str, Any]) -> None:
        """`_launch` of members; here one after the other."""
        for j in range(op.members or 0):
            self._launch(op.member(j), {name: of_member(value, j) for name, value in stepped.items()})

    @abstractmethod
    def elementwise(
        self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], stepped: dict[str, float]
    ) -> None:
        """Run a map kernel at once on arrays of one equal shape and any strides; `decay` is 1 everywhere."""

    def bind(self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], free: str) -> Any:
        """A faster `elementwise` for calls in which only the array `free` changes; None if there is none.

        Its ``place(free, p)`` tells where the free array lies, or None if that, or the state of the written
        array `p`, needs `elementwise`; called with a place and the stepped values in the kernel's order, it
        runs, inside the context that ``around()`` makes if that is not None.  It owns no array.
        """
        return None

    def bind_list(self, kernel: Kernel, members: Sequence[Any], scalars: dict[str, Any], free: str) -> Any:
        """Several results of `bind` as one, or None if there is none.

        Called with a place for each and the stepped values, it runs and is true, or is false and has done
        nothing.
        """
        return None

    def list_steps(
        self,
        parts: Sequence[Part],
        factor: str,
        counters: Any,
        tables: dict[str, Any],
        columns: Sequence[str],
    ) -> Any:
        """Updates of many arrays by few launches; only on a CUDA device.

        Parameters
        ----------
        parts : sequence of Part
        factor : str
            "clip": gradients are clipped; "guard": they are also divided by a scale, and a step whose
            gradients are not finite is skipped; else "".
        counters : int64 array (2,), optional
            [steps done, row of the tables, from 1]: steps are counted on the device.
        tables : dict of type -> array (n_steps, n_columns)
            Per-step values for the parts of that C; the last row is that of all later steps.
        columns : sequence of str
            Their names.
        """
        raise NotImplementedError(f"{self.name} has no launches over lists of arrays")

    def record(self, ops: Sequence[Op], steps: Steps) -> Plan:
        """Prepare `ops` for replay.  Runs no kernel that changes anything but outputs of `Gemm`s."""
        self._check_home("steps", {"step": steps.step, "table": steps.table})
        for op in ops:
            if isinstance(op, AllReduce):
                self._check_home("all-reduce", op.arrays)
            elif isinstance(op, Gemm):
                self._check_home("gemm", {"a": op.a, "b": op.b, "c": op.c})
            else:
                self._check_home(op.kernel.name, op.arrays)
                _check_table(op, steps)
        return self._record(ops, steps)

    @abstractmethod
    def _record(self, ops: Sequence[Op], steps: Steps) -> Plan:
        """`record` of checked operations."""

    def _check_home(self, what: str, arrays: dict[str, Any]) -> None:
        for name, array in arrays.items():
            if device_of(array) != self.device:
                raise TypeError(
                    f"{what}: array {name!r} is on {device_of(array)}; expected an array on {self.device}"
                )

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all work of this backend."""

    def available_bytes(self) -> int | None:
        """Device memory that can still be allocated; None for the host."""
        return None

    def prefetch(self, pairs: Sequence[tuple[Any, Any]], after: Any = None) -> Any:
        """Copy host arrays to device arrays [(dst, src), ...] alongside the running work.

        The copies start after the `mark` given as `after`; returns a mark that they are done.
        """
        for dst, src in pairs:
            self.copy(dst, src)
        return None

    def mark(self) -> Any:
        """A point in this backend's work, for `prefetch` and `wait`."""
        return None

    def wait(self, mark: Any) -> None:
        """Later work of this backend starts after `mark`; the host does not wait."""
        return

    def active(self) -> AbstractContextManager[Any]:
        """This device is current inside, for CuPy's own operators on its arrays."""
        return nullcontext()

    @property
    def wanted(self) -> str:
        """What `gpumlp.get_backend` is to be asked for this executor, in another process too."""
        return self.device if self.name == "cuda" else self.name

    def range(self, name: str) -> AbstractContextManager[None]:
        """Show the work started inside under this name in profilers (NVTX)."""
        return nullcontext()

    def info(self) -> dict[str, str]:
        """Facts for `gpumlp info`."""
        return {"executor": self.name, "device": self.device}


def on_device(method: _Method) -> _Method:
    """Decorator: a method of a model or trainer runs while the model's device is current."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with getattr(self, "model", self).backend.active():
            return method(self, *args, **kwargs)

    return cast(_Method, run)
