"""Build the native executor for 64-bit ARM (Grace, Graviton), run it in an emulator, compare with NumPy.

Training steps and forward passes of a few networks are recorded here and written to a file, with the arrays
that they begin with and those that NumPy's executor makes of them.  `aarch64.cpp`, the runtime and the
kernels are compiled by Debian's cross compiler, once for any ARMv8 and once for a processor with SVE, and run
by qemu-user with four threads.  Needs the packages g++-aarch64-linux-gnu and qemu-user; the exit status is 1
if a number differs.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from gpumlp.backends.native.backend import NativeBackend
from gpumlp.backends.native.build import FLAGS
from gpumlp.backends.native.call import narrow_columns, real_dtype
from gpumlp.backends.native.text import HEADER_WORDS, kernel_source, runtime_source, slots
from gpumlp.backends.numpy import NumpyBackend
from gpumlp.backends.operations import Gemm

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
PROCESSORS = {"any ARMv8": ("-march=armv8-a", "max"), "SVE, 256 bits": ("-mcpu=neoverse-v1", "max,sve256=on")}
#: bits in which results agree: all but a few roundings of four steps (measured: 21 and 50)
BITS = {"float32": 20, "float64": 48}
NETWORKS: list[tuple[list[int], str, str, str, dict[str, Any]]] = [
    ([32, 16, 2], "relu", "softmax_cross_entropy", "adam", {}),
    ([9, 33, 70, 12], "tanh", "softmax_cross_entropy", "rmsprop", {"clip_norm": 0.5}),
    ([20, 40, 1], "gelu", "squared_error", "adamw", {"l2": 1e-3}),
    ([300, 64, 3], "sigmoid", "binary_cross_entropy", "adagrad", {"l1": 1e-3}),
    ([17, 5, 1], "elu", "absolute_error", "sgd", {}),
]


class Recorder(NativeBackend):
    """The native executor, which keeps what it records."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: list[tuple[Any, Any]] = []

    def record(self, ops: Any, steps: Any) -> Any:
        self.plans.append((list(ops), steps))
        return super().record(ops, steps)


def plans(dtype: str) -> Iterable[tuple[Any, Any]]:
    """Operations and steps of trainings and predictions, their buffers filled by a training."""
    rng = np.random.default_rng(0)
    for sizes, activation, loss, rule, options in NETWORKS:
        backend = Recorder()
        model = gpumlp.MLP(sizes, activation, dropout=0.2, seed=1, device=backend, dtype=dtype)
        trainer = gpumlp.Trainer(model, loss=loss, optimizer=rule, batch_size=48, **options)
        X = rng.normal(size=(256, sizes[0]))
        y = rng.integers(0, max(2, sizes[-1]), 256) if "entropy" in loss else rng.normal(size=256)
        if loss == "binary_cross_entropy":
            y = rng.integers(0, 2, (256, sizes[-1]))
        trainer.fit(X, y, epochs=1, validation=0.25, progress=False)  # four whole batches
        model.predict(X[:7])
        yield from backend.plans


# ---- writing -----------------------------------------------------------------------------------------------
def root(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def arrays_of(op: Any) -> list[tuple[np.ndarray, bool]]:
    """Arrays of an operation, and whether it writes them."""
    if isinstance(op, Gemm):
        return [(op.a, False), (op.b, False), (op.c, True)]
    return [(op.arrays[a.name], a.role not in ("in", "raw")) for a in op.kernel.arrays]


class Writer:
    """The file, and the kernels that it asks for."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.kernels: list[str] = []

    def numbers(self, *values: int) -> None:
        self.parts.append(struct.pack(f"<{len(values)}q", *(int(v) for v in values)))

    def kernel(self, source: str) -> int:
        if source not in self.kernels:
            self.kernels.append(source)
        return self.kernels.index(source)

    def plan(self, ops: Any, steps: Any) -> None:
        steps.step[:] = (0, 1)
        replay = NativeBackend().record(ops, steps)
        starts = replay.addresses[1:] - replay.addresses[0]
        words = [w.tolist() for w in np.split(replay.words, starts // 8)]
        used = [array for op in ops for array, _ in arrays_of(op)]
        memory = {r.ctypes.data: r for r in map(root, [*used, steps.table])}
        segments = {w[at]: w[at + 1] for op, w in zip(ops, words, strict=True) for at in self.segments(op)}
        held = [(place, array.nbytes) for place, array in memory.items()]
        held += [(place, 24 * n) for place, n in segments.items()]
        self.numbers(len(held))
        for place, size in held:
            self.numbers(size)
            self.parts.append(ctypes.string_at(place, size))
        self.numbers(len(ops))
        for op, op_words in zip(ops, words, strict=True):
            self.operation(op, op_words, held, steps)
        self.numbers(len(replay.phases), *replay.phases.reshape(-1))
        advance = any(op.tick == "last" for op in ops if not isinstance(op, Gemm))
        times = len(steps.table) if advance and steps.columns else 1
        table = steps.table
        owner = list(memory).index(root(table).ctypes.data)
        place = table.ctypes.data - root(table).ctypes.data
        self.numbers(owner, place, table.strides[0] if table.ndim == 2 else 0, times)
        self.results(ops, steps, memory, times)

    @staticmethod
    def segments(op: Any) -> list[int]:
        """Where the address of the segments stands among the words."""
        masked = not isinstance(op, Gemm) and op.kernel.masked
        return [HEADER_WORDS + slots(op.kernel).index("gpumlp_segments")] if masked else []

    def operation(self, op: Any, words: list[int], held: list[tuple[int, int]], steps: Any) -> None:
        if isinstance(op, Gemm):
            places, number = [5, 7, 9], None
        else:
            places = [HEADER_WORDS + 2 * i for i in range(len(op.kernel.arrays))] + self.segments(op)
            dtype = real_dtype(op.kernel, op.arrays, steps.table.dtype)
            number = self.kernel(kernel_source(op.kernel, dtype, narrow_columns(op)))
        self.numbers(len(words))
        for at, word in enumerate(words):
            if number is not None and at == 1:
                self.numbers(1, number)
            elif at in places:
                owner = next(
                    i for i, (place, size) in enumerate(held) if place <= word < place + max(size, 1)
                )
                self.numbers(owner + 2, word - held[owner][0])
            else:
                self.numbers(0, word)

    def results(self, ops: Any, steps: Any, memory: dict[int, np.ndarray], times: int) -> None:
        """What NumPy makes of the arrays; they are put back as they were."""
        before = {place: array.tobytes() for place, array in memory.items()}
        NumpyBackend().record(ops, steps).run(times)
        written = {(a.ctypes.data, a.shape): a for op in ops for a, w in arrays_of(op) if w}
        real = [a for a in written.values() if a.dtype.kind == "f" and a.size]
        self.numbers(len(real))
        for a in real:
            table = a.reshape(-1, a.shape[-1])
            owner = root(a).ctypes.data
            pitch = a.strides[0] if a.ndim == 2 else 0
            place = list(memory).index(owner), a.ctypes.data - owner
            self.numbers(*place, a.itemsize, *table.shape, pitch)
            self.parts.append(np.ascontiguousarray(table).tobytes())
        self.numbers(BITS[steps.table.dtype.name])
        for place, data in before.items():
            ctypes.memmove(place, data, len(data))


# ---- building and running ----------------------------------------------------------------------------------
def run(folder: Path, kernels: list[str], name: str) -> bool:
    """Whether all numbers agree on a processor of that name."""
    flag, processor = PROCESSORS[name]
    flags = [flag, *(f for f in FLAGS if f != "-shared")]
    (folder / "runtime.cpp").write_text(runtime_source(), encoding="utf-8")
    jobs = {"runtime": [], "driver": [f"-DKERNELS={' '.join(f'X({n})' for n in range(len(kernels)))}"]}
    shutil.copy(Path(__file__).with_suffix(".cpp"), folder / "driver.cpp")
    for number, source in enumerate(kernels):
        (folder / f"{number}.cpp").write_text(source, encoding="utf-8")
        jobs[str(number)] = [f"-Dgpumlp_kernel=gpumlp_kernel_{number}"]
    for job, more in jobs.items():
        command = [COMPILER, *flags, *more, "-c", f"{job}.cpp", "-o", f"{job}.o"]
        subprocess.run(command, cwd=folder, check=True)
    objects = [f"{job}.o" for job in jobs]
    subprocess.run([COMPILER, "-static", "-pthread", *objects, "-o", "driver"], cwd=folder, check=True)
    print(f"{name}: the runtime and {len(kernels)} kernels with {flag}")
    done = subprocess.run([EMULATOR, "-cpu", processor, "driver", "plans"], cwd=folder, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"error: the program ended with status {done.returncode}")
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    missing = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    if missing:
        raise SystemExit(
            f"error: {', '.join(missing)} not found; install g++-aarch64-linux-gnu and qemu-user"
        )
    writer = Writer()
    found = [plan for dtype in BITS for plan in plans(dtype)]
    writer.numbers(len(found))
    for ops, steps in found:
        writer.plan(ops, steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plans").write_bytes(b"".join(writer.parts))
        agree = [run(folder, writer.kernels, processor) for processor in PROCESSORS]
    sys.exit(not all(agree))


if __name__ == "__main__":
    main()
