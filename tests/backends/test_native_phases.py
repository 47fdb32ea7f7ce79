"""How the native executor shares a plan among threads: what may run side by side, without a trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.activations import backward_kernel, forward_kernel
from gpumlp.kernels.kernel import Kernel
from launching import steps_with
from tolerances import RELATIVE

import gpumlp
from gpumlp.backends import get_backend
from gpumlp.backends.native import phases as native_phases
from gpumlp.backends.native.backend import NativeBackend
from gpumlp.backends.operations import Gemm, Launch

pytestmark = pytest.mark.skipif(
    NativeBackend.why_not() is not None, reason=f"no native executor: {NativeBackend.why_not()}"
)

ADD_ONE = Kernel(
    name="gpumlp_test_add_one",
    inputs="T z",
    outputs="T a",
    body="a = z + C(1);",
    reference=lambda z, a, k: np.add(z, 1, out=a),
)
COLUMN_SUMS = Kernel(
    name="gpumlp_test_column_sums",
    outputs="T out",
    raws="T X",
    scalars="int64 n",
    body="out = C(0); for (long long i = 0; i < n; ++i) out += X[i * ld_X + c];",
    reference=lambda X, out, n, k: np.sum(X[:n], axis=0, keepdims=True, out=out),
)
# the last rows take milliseconds, the others together long enough for a sleeping thread to wake up
UNEVEN = Kernel(
    name="gpumlp_test_uneven",
    inouts="T p",
    body="const bool light = r + 8 < rows;\nC x = p;\n"
    "for (int i = 0; i < (light ? 2500 : 200000); ++i) x = x * C(0.5) + C(1);\n"
    "p = light ? p + C(1) + C(0) * x : x;",
    reference=None,
)


def _spans(ops: list, threads: int = 2) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b, _ in native_phases.phases(ops, threads)]


def _rows(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_rows_go_on_without_waiting_and_sums_over_rows_wait() -> None:
    x, w, z, a, dw = _rows(64, 9), _rows(9, 5), _rows(64, 5), _rows(64, 5), _rows(9, 5)
    ops = [Gemm(x, w, z), Launch(ADD_ONE, {"z": z, "a": a}, {}, 64, 5), Gemm(x, a, dw, trans_a=True)]
    assert _spans(ops) == [(0, 2), (2, 3)]
    column = Launch(COLUMN_SUMS, {"out": _rows(1, 5), "X": a}, {"n": 64}, 1, 5)
    assert _spans([*ops[:2], column]) == [(0, 2), (2, 3)]
    # two sums that touch nothing in common need not wait for each other
    assert _spans([*ops, Gemm(a, z, _rows(5, 5), trans_a=True)]) == [(0, 2), (2, 4)]


def test_what_is_written_by_other_rows_is_waited_for() -> None:
    buffer = _rows(80, 5)
    first = Launch(ADD_ONE, {"z": buffer[:64], "a": buffer[:64]}, {}, 64, 5)
    shifted = Launch(ADD_ONE, {"z": buffer[1:65], "a": _rows(64, 5)}, {}, 64, 5)
    fewer = Launch(ADD_ONE, {"z": buffer[:40], "a": _rows(40, 5)}, {}, 40, 5)
    assert _spans([first, shifted]) == [(0, 1), (1, 2)]
    assert _spans([first, fewer]) == [(0, 1), (1, 2)]
    assert _spans([shifted, first]) == [(0, 1), (1, 2)]  # reads before the other writes
    assert _spans([first, first]) == [(0, 2)]


def _bytes(array: np.ndarray) -> set[int]:
    """Addresses of all elements; they are of one size here."""
    offsets = np.zeros(1, np.int64)
    for n, stride in zip(array.shape, array.strides, strict=True):
        offsets = (offsets[:, None] + np.arange(n) * stride).reshape(-1)
    span = range(array.ctypes.data + int(offsets.min()), array.ctypes.data + int(offsets.max()) + 4)
    return set(span)  # with what lies between: a range, as the executor sees it


def _touched(op: Any) -> list[tuple[set[int], Any, bool]]:
    """(bytes, whose rows they are or None, written) of each array of an operation."""
    if isinstance(op, Gemm):
        of_rows = not op.trans_a
        given = [(op.a, of_rows, False), (op.b, False, False), (op.c, of_rows, True)]
        rows = len(op.c)
    else:
        roles = {"out": True, "inout": True, "rawout": True, "in": False, "raw": False}
        given = [(op.arrays[a.name], not a.role.startswith("raw"), roles[a.role]) for a in op.kernel.arrays]
        rows = op.rows
        if not native_phases.by_rows(op) or rows == 1:
            given = [(array, False, written) for array, _, written in given]
    return [
        (_bytes(array), (array.ctypes.data, array.strides[0], rows) if of_rows else None, written)
        for array, of_rows, written in given
    ]


def _waits(one: list, other: list) -> bool:
    return any(
        (w or w2) and bytes_ & bytes2 and (rows is None or rows != rows2)
        for bytes_, rows, w in one
        for bytes2, rows2, w2 in other
    )


@pytest.mark.parametrize("seed", range(60))
def test_phases_are_those_of_comparing_everything_with_everything(seed: int) -> None:
    """On random plans over views of one buffer, which overlap in every way."""
    rng = np.random.default_rng(seed)
    buffer = np.zeros(int(rng.choice([60, 200, 800])), np.float32)

    def view(rows: int, cols: int) -> np.ndarray:
        stride = cols + int(rng.integers(0, 3))
        start = 4 * int(rng.integers(0, max(1, (buffer.size - rows * stride) // 4)))
        return np.lib.stride_tricks.as_strided(buffer[start:], (rows, cols), (4 * stride, 4))

    ops: list[Any] = []
    for _ in range(30):
        rows, cols, inner = (int(n) for n in rng.choice([1, 2, 3], 3))
        rows = int(rng.choice([1, rows, 9]))
        kind = int(rng.integers(0, 4))
        if kind == 0:
            ops.append(Gemm(view(rows, inner), view(inner, cols), view(rows, cols)))
        elif kind == 1:
            ops.append(Gemm(view(inner, rows), view(inner, cols), view(rows, cols), trans_a=True))
        elif kind == 2:
            ops.append(
                Launch(COLUMN_SUMS, {"out": view(1, cols), "X": view(rows, cols)}, {"n": rows}, 1, cols)
            )
        else:
            z = view(9, cols)
            a = z if rng.random() < 0.5 else view(9, cols)
            ops.append(Launch(ADD_ONE, {"z": z, "a": a}, {}, 9, cols))
    expected, running = [0], []
    for number, op in enumerate(ops):
        if number and any(_waits(_touched(op), earlier) for earlier in running):
            expected.append(number)
            running = []
        running.append(_touched(op))
    assert [start for start, _ in _spans(ops)] == expected
    assert 1 < len(expected) < len(ops)


def test_the_work_of_finding_phases_grows_with_the_number_of_layers() -> None:
    """Counted in calls of functions, which do not depend on the machine."""

    def calls(layers: int) -> int:
        x = [_rows(8, 4) for _ in range(layers + 1)]
        ops = [Gemm(a, _rows(4, 4), b) for a, b in zip(x, x[1:], strict=False)]
        count = 0

        def note(frame: Any, event: str, arg: Any) -> None:
            nonlocal count
            count += event == "call"

        usual = sys.getprofile()
        sys.setprofile(note)
        try:
            assert _spans(ops) == [(0, layers)]
        finally:
            sys.setprofile(usual)
        return count

    assert calls(400) < 5 * calls(100)


def test_a_training_step_has_three_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[list] = []
    usual = NativeBackend.record
    monkeypatch.setattr(
        NativeBackend,
        "record",
        lambda self, ops, steps: recorded.append(list(ops)) or usual(self, ops, steps),
    )
    _train(clip_norm=None)
    step = next(ops for ops in recorded if any(isinstance(op, Gemm) and op.trans_a for op in ops))
    spans = _spans(step)
    assert [_kinds(step[a:b]) for a, b in spans] == ["rows", "sums", "update"]


def _kinds(ops: list) -> str:
    if all(isinstance(op, Gemm) and op.trans_a for op in ops):
        return "sums"
    if all(native_phases.by_rows(op) for op in ops):
        return "rows"
    return "update" if len(ops) == 1 else "mixed"


def test_small_work_stays_on_one_thread() -> None:
    small, large = _rows(16, 16), _rows(512, 512)
    assert native_phases.phases([Gemm(small, small, _rows(16, 16))], 8)[0, 2] == 1
    assert native_phases.phases([Gemm(large, large, _rows(512, 512))], 8)[0, 2] == 8


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that sets the number of shares, however small they become."""
    runtime = NativeBackend().record([], steps_with(get_backend("numpy"))).runtime
    usual = runtime.threads
    monkeypatch.setattr(native_phases, "LEAST_NS", 1.0)

    def use(threads: int) -> None:
        runtime.threads = threads

    yield use
    runtime.threads = usual


def _train(dtype: str = "float32", clip_norm: float | None = 0.5) -> np.ndarray:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 20)), rng.integers(0, 3, 200)
    model = gpumlp.MLP([20, 33, 70, 3], activation="tanh", dropout=0.2, seed=1, device="native", dtype=dtype)
    trainer = gpumlp.Trainer(
        model,
        loss="softmax_cross_entropy",
        optimizer=gpumlp.Adam(lr=1e-2),
        batch_size=64,
        clip_norm=clip_norm,
        l1=1e-3,
    )
    trainer.fit(X, y, epochs=3, progress=False)
    return np.array(model.flat)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_number_of_threads_leaves_no_trace(shared: Any, dtype: str) -> None:
    results = []
    for threads in (1, 2, 3, 7, 32):
        shared(threads)
        results.append(_train(dtype))
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_members_on_any_number_of_threads(shared: Any, dtype: str) -> None:
    """Whole members where there are enough of them, else rows of each."""
    rng, members, results = np.random.default_rng(0), 5, []
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in ((members, 40, 33), (members, 33, 50)))
    b = rng.standard_normal((33, 50)).astype(dtype)
    for threads in (1, 2, 3, 7, 32):
        shared(threads)
        z, a, g, d = (np.zeros((members, 40, 50), dtype) for _ in range(4))
        ops = [
            Gemm(x, w, z),
            Launch(forward_kernel("tanh"), {"z": z, "a": a}, {}, 40, 50, members=members),
            Gemm(x, b, d),
            Launch(backward_kernel("tanh"), {"a": a, "d": d}, {}, 40, 50, members=members),
            Gemm(x, d, w, trans_a=True),
            Gemm(x, w, g),
        ]
        plan = NativeBackend().record(ops, steps_with(get_backend("numpy")))
        assert threads > members or len(plan.phases) == 1
        start = w.copy()
        plan.run(2)
        results.append([x.copy() for x in (z, a, g, d, w)])
        w[:] = start
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_a_share_that_is_held_up_changes_nothing(shared: Any) -> None:
    """After a long wait the steps are done alone; none is lost and none done twice."""
    shared(2)
    p = _rows(64, 4)
    replay = NativeBackend().record([Launch(UNEVEN, {"p": p}, {}, 64, 4)], steps_with(get_backend("numpy")))
    assert replay.phases.tolist() == [[0, 1, 2]]
    for n in (1, 20, 40):
        replay.run(n)
    assert (p[:56] == 61).all()
    np.testing.assert_allclose(p[56:], 2.0, rtol=RELATIVE["float32 roundings"])  # where x = x / 2 + 1 ends
