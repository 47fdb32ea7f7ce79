"""Kernels at once: any size, alignment and layout, nothing beside them written; every executor alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract import ADAM, CALL, HOST, SOFTMAX, TANH, plan_steps, state
from tolerances import close

from gpumlp.backends.operations import Launch

pytestmark = pytest.mark.memory


# ---- map kernels ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 3, 127, 2**16 + 1])
@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
def test_a_masked_kernel_at_any_size_and_alignment(backend: Any, n: int, offset: int, dtype: Any) -> None:
    host, device = state(n, dtype), {}
    for name, a in host.items():
        device[name] = backend.zeros(n + 2, dtype)[offset : offset + n]
        device[name][...] = backend.asarray(a)
    # not at multiples of the vector width
    cut = [(0, n // 3, 1.0), (n // 3, n // 2, 0.0), (n // 2, n - n // 4, 1.0), (n - n // 4, n, 0.0)]
    HOST.launch(ADAM, host, *CALL, rows=1, cols=n, segments=cut)
    backend.launch(ADAM, device, *CALL, rows=1, cols=n, segments=cut)
    for name, a in host.items():
        close(backend.to_numpy(device[name]), a, "optimizer")


@pytest.mark.parametrize("cols, stride", [(1, 1), (3, 4), (10, 16), (13, 13), (64, 72)])
def test_padding_is_left_alone(backend: Any, cols: int, stride: int) -> None:
    z = np.random.default_rng(0).standard_normal((5, stride)).astype("float32")
    device, out = backend.asarray(z), backend.zeros((5, stride), "float32")
    backend.launch(TANH, {"z": device[:, :cols], "a": out[:, :cols]}, {}, rows=5, cols=cols)
    expected = np.zeros_like(z)
    expected[:, :cols] = np.tanh(z[:, :cols])
    close(backend.to_numpy(out), expected, "elementwise")


# ---- row kernels ---------------------------------------------------------------------------------------
def _rows(backend: Any, rows: int, cols: int, dtype: Any, bad: bool = False) -> tuple[Any, Any, Any, Any]:
    """Arrays of `SOFTMAX` on the device and what it should make of them; `out` lies in a buffer of 77."""
    z = ((1 if bad else 5) * np.random.default_rng(0).standard_normal((rows, cols + 3))).astype(dtype)
    if bad:
        z[3, 0], z[rows - 1, cols - 1] = np.nan, np.inf
    buffer = backend.asarray(np.full((rows + 1, cols + 3), 77, dtype))
    arrays = {"z": backend.asarray(z)[:, :cols], "out": buffer[:rows, :cols]}
    arrays["total_of_row"] = backend.zeros(rows, dtype)
    expected = {"z": z[:, :cols], "out": np.empty((rows, cols), dtype), "total_of_row": np.empty(rows, dtype)}
    HOST.launch(SOFTMAX, expected, {}, rows=rows, cols=cols)
    return arrays, buffer, expected, z


def _check_rows(
    backend: Any, arrays: Any, buffer: Any, expected: Any, rows: int, cols: int, what: str
) -> None:
    for name in ("out", "total_of_row"):
        close(backend.to_numpy(arrays[name]), expected[name], what)
    host = backend.to_numpy(buffer)
    assert (host[rows] == 77).all() and (host[:, cols:] == 77).all()


@pytest.mark.parametrize("rows", [1, 5, 40, 2000])
@pytest.mark.parametrize("classes", [1, 2, 4, 10, 17, 33, 200, 1000, 1500])
def test_a_row_kernel_for_few_and_many_classes(backend: Any, rows: int, classes: int, dtype: Any) -> None:
    rows = rows if classes < 200 else min(rows, 40)
    arrays, buffer, expected, _ = _rows(backend, rows, classes, dtype)
    backend.launch(SOFTMAX, arrays, {}, rows=rows, cols=classes)
    _check_rows(backend, arrays, buffer, expected, rows, classes, "softmax of long rows")


@pytest.mark.parametrize("rows", [32, 100, 7001])
@pytest.mark.parametrize("cols", [1, 2, 10, 11])
def test_recorded_short_rows(backend: Any, rows: int, cols: int, dtype: Any) -> None:
    """In plans, short rows may be computed many at a time, by code made for their number of columns."""
    arrays, buffer, expected, _ = _rows(backend, rows, cols, dtype, bad=True)
    op = Launch(SOFTMAX, arrays, {}, rows, cols)
    backend.record([op], plan_steps(backend)).run()
    _check_rows(backend, arrays, buffer, expected, rows, cols, "softmax")


def test_sums_of_rows_are_repeatable_bit_by_bit(backend: Any) -> None:
    results = []
    for _ in range(2):
        arrays, *_ = _rows(backend, 7, 1500, "float32")
        backend.launch(SOFTMAX, arrays, {}, rows=7, cols=1500)
        results.append(backend.to_numpy(arrays["out"]))
    assert np.array_equal(*results)


# ---- bare arrays ---------------------------------------------------------------------------------------
#: views of a larger array
VIEWS = {
    "whole": lambda a: a,
    "transposed": lambda a: a.T,
    "every second row": lambda a: a[::2],
    "shifted": lambda a: a[:, 1:],
    "padded": lambda a: a[:, :-5],
    "reversed": lambda a: a[::-1, ::3],
}


@pytest.mark.parametrize("view", VIEWS)
def test_elementwise_on_any_strides(backend: Any, view: str, dtype: Any) -> None:
    host, of = state((33, 17), dtype), VIEWS[view]
    device = {n: backend.asarray(a.copy()) for n, a in host.items()}
    HOST.elementwise(ADAM, {n: of(a) for n, a in host.items()}, *CALL)
    held = {n: of(a) for n, a in device.items()}
    backend.elementwise(ADAM, held, *CALL)
    for name, a in host.items():  # the elements outside of the view have not changed
        close(backend.to_numpy(device[name]), a, "optimizer")


@pytest.mark.parametrize("shape", [(7,), (33, 17), (3, 5, 7), (0,), (4, 0), (1, 1)])
def test_elementwise_on_mixed_layouts(backend: Any, shape: tuple, dtype: Any) -> None:
    host = state(shape, dtype)
    device = {n: backend.asarray(a.copy()) for n, a in host.items()}
    device["p"] = backend.xp.asfortranarray(device["p"])
    given = dict(device)
    HOST.elementwise(ADAM, host, *CALL)
    backend.elementwise(ADAM, device, *CALL)
    for name, array in device.items():
        assert array is given[name]
        close(backend.to_numpy(array), host[name], "optimizer")


def test_elementwise_on_one_number(backend: Any) -> None:
    a = backend.zeros((), "float64")
    backend.elementwise(TANH, {"z": backend.asarray(np.array(0.5)), "a": a}, {}, {})
    close(backend.to_numpy(a), np.tanh(0.5), "elementwise")


@pytest.mark.parametrize(
    ("read", "write"),
    [(np.s_[:], np.s_[:]), (np.s_[:-3], np.s_[3:]), (np.s_[3:], np.s_[:-3])],
    ids=["in place", "behind", "before"],
)
def test_elementwise_in_place_and_overlapping(backend: Any, read: Any, write: Any) -> None:
    start = np.linspace(-3, 3, 1000)
    x = backend.asarray(start.copy())
    backend.elementwise(TANH, {"z": x[read], "a": x[write]}, {}, {})
    expected = start.copy()
    expected[write] = np.tanh(start[read])
    close(backend.to_numpy(x), expected, "elementwise")


def test_large_arrays_are_split_without_a_trace(backend: Any) -> None:
    """The result is bitwise that of small pieces."""
    n, step = 300_001, 9_996
    whole, pieces = ({m: backend.asarray(a) for m, a in state(n, "float32").items()} for _ in range(2))
    backend.elementwise(ADAM, whole, *CALL)
    for start in range(0, n, step):
        backend.elementwise(ADAM, {m: a[start : start + step] for m, a in pieces.items()}, *CALL)
    for name, array in whole.items():
        assert np.array_equal(backend.to_numpy(array), backend.to_numpy(pieces[name]))
