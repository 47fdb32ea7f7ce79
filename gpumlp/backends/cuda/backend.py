"""The CuPy executor: kernels are `cupy.ElementwiseKernel`s, a plan is one CUDA graph.

Streams
-------
Everything runs on the caller's current CuPy stream: kernels, copies and graph launches.  So it is ordered
with the caller's own work before and after, without synchronisation.  All work of a backend is ordered among
itself as well: if the current stream is not that of the last call, it first waits (on the device) for
that one, so a stream that was current must live until the next call.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime

from gpumlp.backends.arrays import is_cuda
from gpumlp.backends.base import Backend, Plan, Steps
from gpumlp.backends.contract import check_elementwise
from gpumlp.backends.cuda.arrays import MIB, Staging, apart, described, memory_for
from gpumlp.backends.cuda.available import version_text
from gpumlp.backends.cuda.branches import Place, branches, one_branch
from gpumlp.backends.cuda.cublas import Cublas, load_library, matmul
from gpumlp.backends.cuda.graphs import CudaPlan, captured
from gpumlp.backends.cuda.kernels import (
    Bound,
    BoundList,
    Call,
    Kernels,
    Segments,
    decay_bits,
    pointer,
    written_spans,
)
from gpumlp.backends.cuda.lists import ListSteps
from gpumlp.backends.cuda.work import Order, Work
from gpumlp.backends.operations import AllReduce, Gemm, Launch, Op
from gpumlp.errors import DeviceError
from gpumlp.kernels.kernel import Kernel

try:
    from cupy.cuda import nvtx
except ImportError:
    nvtx = None

__all__ = ["CupyBackend"]


class CupyBackend(Backend):
    """Runs on one CUDA device.

    Parameters
    ----------
    device : int
        Its number, as CuPy counts.
    graph : bool, optional
        Replay plans as CUDA graphs; False runs the same operations one by one.  By default true unless the
        environment variable ``GPUMLP_GRAPH`` is 0; always false on ROCm.
    branches : bool
        Operations of a graph that do not wait for each other run side by side; False: one after the other.
        The results are the same bits.
    """

    name = "cuda"
    xp = cupy

    def __init__(self, device: int = 0, *, graph: bool | None = None, branches: bool = True) -> None:
        self.number = int(device)
        self.device = f"cuda:{self.number}"
        if graph is None:
            graph = os.environ.get("GPUMLP_GRAPH", "1").strip().lower() not in ("0", "false", "no", "off")
        self.graph, self._branches = bool(graph) and not runtime.is_hip, bool(branches)
        self._order = Order(self.number)
        self._kernels = Kernels(self.number)
        self.load_seconds = self._kernels.seconds
        self._blas: dict[bool, Cublas] = {}  # whether it is that of the side branch
        self._capture_streams: tuple[Any, Any] | None = None
        self._copy_stream: Any = None
        with cupy.cuda.Device(self.number):
            self._staging, self._prefetching = Staging(), Staging()
            self._tables = cupy.cuda.MemoryPool()

    # ---- order and memory -----------------------------------------------
    def work(self, captured: bool = False) -> Work:
        """A context: the device is current, and the current stream (the value) is behind all earlier work of
        this backend.  With `captured` the caller may be capturing it."""
        return self._order.work(captured)

    def free_memory(self) -> None:
        """Give back what CuPy's pools keep for later use (device and pinned memory)."""
        with self.work():
            self._tables.free_all_blocks()
            cupy.get_default_memory_pool().free_all_blocks()
            cupy.get_default_pinned_memory_pool().free_all_blocks()

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> cupy.ndarray:
        with self.work(), memory_for(self.device, described(shape, dtype)):
            return cupy.empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> cupy.ndarray:
        with self.work(), memory_for(self.device, described(shape, dtype)):
            return cupy.zeros(shape, dtype)

    def asarray(self, x: Any, dtype: Any = None) -> cupy.ndarray:
        """`x` as a C-contiguous array of this device.

        CuPy arrays, and others with ``__cuda_array_interface__`` or DLPack on a CUDA device, are not copied
        if dtype and layout are right; everything else comes from the host through pinned memory.

        Raises
        ------
        TypeError
            `x` is on another CUDA device.
        """
        with self.work():
            if not isinstance(x, cupy.ndarray):
                if hasattr(x, "__cuda_array_interface__"):
                    x = cupy.asarray(x)
                elif is_cuda(x):
                    x = cupy.from_dlpack(x)
                else:
                    return self._upload(np.asarray(x), dtype)
            if x.device.id != self.number:
                raise TypeError(
                    f"an array on cuda:{x.device.id} was given where one on {self.device} is expected; "
                    f"copy it: with cupy.cuda.Device({self.number}): x = cupy.array(x)"
                )
            with memory_for(self.device, described(x.shape, dtype or x.dtype)):
                x = x if dtype is None else x.astype(dtype, copy=False)
                return x if x.flags.c_contiguous else x.copy(order="C")

    def _upload(self, host: np.ndarray, dtype: Any = None) -> cupy.ndarray:
        array = self.empty(host.shape, host.dtype if dtype is None else dtype)
        self.copy(array, host)
        return array

    def to_numpy(self, x: Any) -> np.ndarray:
        """Copy of `x` on the host; waits for the current stream only."""
        if not isinstance(x, cupy.ndarray):
            return np.array(x)
        with self.work() as stream, memory_for(self.device, described(x.shape, x.dtype)):
            # with `out`: without it, unified memory gives a view that nobody has waited for
            return x.get(stream=stream, out=np.empty(x.shape, x.dtype))

    def copy(self, dst: Any, src: Any) -> None:
        """dst[...] = src without waiting; `src` may be changed afterwards.

        A host array larger than the staging buffers may make the caller wait for its first part.
        """
        if dst.shape != src.shape:
            raise ValueError(f"copy of {src.shape} {src.dtype} into {dst.shape} {dst.dtype}")
        with self.work() as stream:
            if dst.nbytes == 0:
                return
            if not dst.flags.c_contiguous:
                here = isinstance(src, cupy.ndarray) and src.device.id == self.number
                dst[...] = src if here else self.asarray(src)
            elif isinstance(src, np.ndarray):
                self._staging.send(dst, np.ascontiguousarray(src), stream)
            elif src.flags.c_contiguous and src.dtype == dst.dtype:
                dst.data.copy_from_device_async(src.data, dst.nbytes, stream)
            else:
                dst[...] = src

    def available_bytes(self) -> int:
        """Free memory of the device and of CuPy's pool, within the pool's limit if one is set."""
        with self.work():
            with suppress(OSError, ImportError):  # then products are CuPy's
                for side in {False, self.graph and self._branches}:  # their workspaces come first
                    self._cublas(side)
            pool = cupy.get_default_memory_pool()
            free = runtime.memGetInfo()[0] + pool.free_bytes()
            limit = pool.get_limit()
            return min(free, limit - pool.used_bytes()) if limit else free

    def prefetch(self, pairs: Sequence[tuple[Any, Any]], after: Any = None) -> Any:
        with self.work():
            if self._copy_stream is None:
                self._copy_stream = cupy.cuda.Stream(non_blocking=True)
            side = self._copy_stream
            if after is not None:
                side.wait_event(after)
            try:
                for dst, src in pairs:
                    self._prefetching.send(dst, np.ascontiguousarray(src), side)
                return side.record(cupy.cuda.Event(disable_timing=True))
            except BaseException:  # Ctrl-C: `dst` may be freed now, so no copy to it may be on its way
                side.synchronize()
                raise

    def mark(self) -> Any:
        with self.work() as stream:
            return stream.record(cupy.cuda.Event(disable_timing=True))

    def wait(self, mark: Any) -> None:
        with self.work() as stream:
            stream.wait_event(mark)

    def synchronize(self) -> None:
        with self.work() as stream:
            stream.synchronize()

    # ---- kernels -----------------------------------------------
    def _launch(self, op: Launch, stepped: dict[str, float]) -> None:
        with self.work():
            self._kernels.run(self._bind(op, {**op.scalars, **stepped}))

    def _launch_members(self, op: Launch, stepped: dict[str, Any]) -> None:
        if op.members == 1:  # by the kernels of one network
            super()._launch_members(op, stepped)
        else:
            self._launch(op, stepped)

    def _bind(self, op: Launch, values: dict[str, Any], plan: dict[str, Any] | None = None) -> Call:
        decay, space = self._decay(op.kernel, op.segments, op.cols), (op.rows, op.cols)
        return self._kernels.bind(op.kernel, op.arrays, values, *space, decay, plan, op.members, op.shared)

    def elementwise(
        self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], stepped: dict[str, float]
    ) -> None:
        check_elementwise(kernel, arrays, scalars, stepped)
        self._check_home(kernel.name, arrays)
        plain = [arrays[a.name] for a in kernel.arrays if not a.role.startswith("raw")]
        first = plain[0]
        if first.size == 0:
            return
        values = {**scalars, **stepped}
        with self.work():
            arrays = apart(kernel, arrays)
            if all(a.flags.c_contiguous for a in plain) or all(a.flags.f_contiguous for a in plain):
                self._kernels.run(self._kernels.bind(kernel, arrays, values, 1, first.size))
            else:
                self._kernels.run_strided(kernel, arrays, values)

    def bind(self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], free: str) -> Any:
        first = arrays[free]
        plain = not any(a.role.startswith("raw") for a in kernel.arrays)
        if not plain or first.size == 0 or not all(a.flags.c_contiguous for a in arrays.values()):
            return None
        values = {**scalars, **dict.fromkeys(kernel.stepped, 0.0)}
        with self.work():
            if apart(kernel, arrays) is not arrays:
                return None
            call = self._kernels.bind(kernel, arrays, values, 1, first.size)
            return Bound(call, arrays, free, kernel.stepped, self.work)

    def bind_list(
        self, kernel: Kernel, members: Sequence[Any], scalars: dict[str, Any], free: str
    ) -> BoundList | None:
        spans = written_spans(kernel, members)
        if any(a[1] > b[0] for a, b in itertools.pairwise(spans)):
            return None
        if not all(m.aligned and m.dtype == members[0].dtype for m in members):
            return None
        with self.work(), suppress(cupy.cuda.memory.OutOfMemoryError):
            return BoundList(kernel, self._kernels, members, free, scalars, self._tables, self._staging)
        return None

    def list_steps(self, *args: Any, **kwargs: Any) -> ListSteps:
        with self.work():
            return ListSteps(self._kernels, self._staging, self._tables, *args, **kwargs)

    def _decay(self, kernel: Kernel, segments: Segments | None, cols: int) -> Any:
        if not kernel.masked or segments is None:
            return None
        return self._upload(decay_bits(segments, cols))

    # ---- plans -----------------------------------------------
    def bind_plan(self, op: Launch | AllReduce, steps: Steps) -> Callable[[], None]:
        """`op` as part of a plan, compiled and loaded."""
        if isinstance(op, AllReduce):
            return op.run
        plan: dict[str, Any] = {
            "late_": int(op.tick != "first"),
            "ticker_": 0 if op.tick else -1,
            "counters_": pointer(steps.step, np.int64),
        }
        if op.kernel.stepped:
            plan["table_"] = pointer(steps.table, steps.table.dtype)
            plan["table_width_"] = steps.table[0].size
            plan["member_width_"] = len(steps.columns)
            plan.update((f"{name}_at_", steps.columns.index(name)) for name in op.kernel.stepped)
        with self.work():
            call = self._bind(op, op.scalars, plan)
            self._kernels.load(call)
        return call

    def _record(self, ops: Sequence[Op], steps: Steps) -> Plan:
        # one member: by the kernels of one network
        ops = [op if isinstance(op, AllReduce) or op.members != 1 else op.member(0) for op in ops]
        plan = branches(ops, steps) if self.graph and self._branches else one_branch(len(ops))
        side = {place.op for place in plan if place.side}
        calls = [
            self.gemm(op, n in side) if isinstance(op, Gemm) else self.bind_plan(op, steps)
            for n, op in enumerate(ops)
        ]
        return CudaPlan(self, calls, self.capture(calls, plan), keep=(list(ops), steps))

    def gemm(self, op: Gemm, side: bool = False) -> Callable[[], None]:
        """`op` ready to run on the stream given to `aim`, its kernel loaded by one run."""
        with self.work() as stream:
            try:
                blas = self._cublas(side)
            except (OSError, ImportError) as error:
                if op.tf32 or op.a.dtype.itemsize < 4:
                    raise DeviceError(
                        f"reduced precision needs cuBLAS, which cannot be called here ({error}); "
                        "use precision='float32'"
                    ) from error
                self._eager(f"cuBLAS cannot be called directly ({error})")
                a = op.a.swapaxes(-1, -2) if op.trans_a else op.a
                b = op.b.swapaxes(-1, -2) if op.trans_b else op.b
                return lambda: matmul(a, b, op.c)
            call = blas.bind(op)
            blas.set_stream(stream.ptr)
            call()
            return call

    def _cublas(self, side: bool = False) -> Cublas:
        """The handle of a branch; products of one handle share its workspace, so they need an order."""
        if side not in self._blas:
            if runtime.is_hip:
                raise OSError("this is ROCm")
            load_library()
            modern = int(cupy.cuda.Device().compute_capability) >= 90
            self._blas[side] = Cublas(self.empty((32 if modern else 8) * MIB, np.uint8))
        return self._blas[side]

    def aim(self, main: Any, side: Any) -> None:
        """Send the products of `gemm` to these streams, by their branch."""
        for beside, blas in self._blas.items():
            blas.set_stream((side if beside else main).ptr)

    def capture(self, calls: Sequence[Callable[[], None]], plan: Sequence[Place] | None = None) -> Any:
        """A CUDA graph of `calls`, or None where graphs are off; a failure warns once and turns them off."""
        if not self.graph:
            return None
        with self.work() as outer:
            if self._capture_streams is None:
                self._capture_streams = tuple(cupy.cuda.Stream(non_blocking=True) for _ in range(2))
            try:
                self.aim(*self._capture_streams)
                graph = captured(calls, plan or one_branch(len(calls)), self._capture_streams)
                graph.upload(outer)
                return graph
            except (RuntimeError, MemoryError) as error:
                self._capture_streams = None
                self._eager(f"capture failed: {error}")
                return None

    def _eager(self, why: str) -> None:
        if self.graph:
            self.graph = False
            warnings.warn(
                f"{self.device}: CUDA graphs are off, steps are launched operation by operation ({why})",
                RuntimeWarning,
                stacklevel=3,
            )

    def active(self) -> Any:
        self._order.check_process()
        return cupy.cuda.Device(self.number)

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        push = getattr(nvtx, "RangePush", None)  # a CuPy built without NVTX has a module without it
        if push is not None:
            push(name)
        try:
            yield
        finally:
            if push is not None:
                nvtx.RangePop()

    def info(self) -> dict[str, str]:
        with self.work():
            properties = runtime.getDeviceProperties(self.number)
            free, total = runtime.memGetInfo()
            try:
                blas = self._cublas().version()
            except (OSError, ImportError):
                blas = "not found"
            capability = cupy.cuda.Device().compute_capability
            return {
                **super().info(),
                "gpu": properties["name"].decode(),
                "compute capability": f"{capability[:-1]}.{capability[-1]}",
                "memory": f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free",
                "cupy": cupy.__version__,
                "driver": version_text(runtime.driverGetVersion()),
                "runtime": version_text(runtime.runtimeGetVersion()),
                "cublas": blas,
                "cuda graphs": "on" if self.graph else "off",
            }
