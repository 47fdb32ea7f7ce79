"""What kernels and products refuse, with the same exception on every executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.kernel import Kernel
from launching import steps_with

import gpumlp
from gpumlp.backends.base import Steps
from gpumlp.backends.operations import Gemm, Launch


def _scale(x: Any, y: Any, lookup: Any, factor: float, lr: float, k: int, decay: float = 1.0) -> None:
    y[...] = x * lookup[0, 0] * factor * lr * decay


SCALE = Kernel(
    name="gpumlp_test_scale",
    inputs="T x",
    inouts="T y",
    raws="C lookup",
    scalars="C factor",
    stepped=("lr",),
    masked=True,
    body="y = x * lookup[r * 0 + c * 0 * ld_lookup] * factor * lr * decay;",
    reference=_scale,
)


def _double(x: Any, y: Any, k: int) -> None:
    y[...] = 2 * x


DOUBLE = Kernel("gpumlp_test_double", "y = C(2) * x;", _double, inputs="T x", outputs="T y")
SPACE = {"rows": 4, "cols": 8}


def _arrays(backend: Any, **changed: Any) -> dict[str, Any]:
    arrays = {"x": np.ones((4, 8)), "y": np.ones((4, 8)), "lookup": np.ones((2, 3)), **changed}
    return {
        name: backend.asarray(a) if isinstance(a, np.ndarray) else a(backend) for name, a in arrays.items()
    }


def _steps(backend: Any, columns: tuple[str, ...] = ("lr",), dtype: str = "float64") -> Steps:
    return steps_with(backend, columns, np.ones((2, len(columns)), dtype))


def _view(shape: tuple[int, ...], at: Any, dtype: str = "float64") -> Any:
    return lambda backend: backend.zeros(shape, dtype)[at]


BAD_ARRAYS = {
    "too few rows": ({"y": np.ones((3, 8))}, ValueError, r"'y' has shape \(3, 8\), smaller than .* \(4, 8\)"),
    "too few columns": ({"x": np.ones((4, 7))}, ValueError, r"'x' has shape \(4, 7\), smaller than"),
    "one row": ({"x": np.ones(32)}, ValueError, r"'x' has shape \(32,\); expected 2-D for 4 rows"),
    "three dimensions": ({"x": np.ones((4, 8, 1))}, ValueError, r"'x' has shape .*; expected 1-D or 2-D"),
    "no dimension": ({"lookup": np.ones(())}, ValueError, r"'lookup' has shape \(\); expected 1-D or 2-D"),
    "columns apart": (
        {"y": _view((4, 16), np.s_[:, ::2])},
        ValueError,
        r"'y' has strides \(128, 16\); expected unit stride",
    ),
    "columns of a raw array apart": (
        {"lookup": _view((2, 6), np.s_[:, ::-2])},
        ValueError,
        r"'lookup' has strides .*; expected unit stride",
    ),
    "rows that overlap": (
        {"y": lambda b: b.xp.lib.stride_tricks.as_strided(b.zeros(64, "float64"), (4, 8), (32, 8))},
        ValueError,
        r"'y' has strides \(32, 8\): its rows overlap",
    ),
    "another float": ({"y": np.ones((4, 8), "float32")}, TypeError, "'y' is float32; expected float64"),
    "another float, raw": (
        {"lookup": np.ones((2, 3), "float32")},
        TypeError,
        "'lookup' is float32; expected f",
    ),
    "integers": ({"x": np.ones((4, 8), "int64")}, TypeError, "arrays of int64; expected float32 or float64"),
    "a list": ({"y": lambda _: [1.0]}, TypeError, "'y' is list; expected a NumPy or CuPy array"),
}


@pytest.mark.memory
@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_launches_refuse_arrays_that_do_not_fit(backend: Any, case: str) -> None:
    changed, error, text = BAD_ARRAYS[case]
    arrays = _arrays(backend, **changed)
    with pytest.raises(error, match=text):
        Launch(SCALE, arrays, {"factor": 1.0}, **SPACE)
    with pytest.raises(error, match=text):
        backend.launch(SCALE, arrays, {"factor": 1.0}, {"lr": 1.0}, **SPACE)


@pytest.mark.parametrize(
    "least, text",
    [
        ({"lookup": (3, 3)}, r"'lookup' has shape \(2, 3\); expected \(3, 3\) at least"),
        ({"lookup": (2, 4)}, r"'lookup' has shape \(2, 3\); expected \(2, 4\) at least"),
        ({"lookup": (6,)}, r"'lookup' has shape \(2, 3\); expected \(6,\) at least"),
        ({"x": (4, 8)}, r"extents of \['x'\]; its raw arrays are \['lookup'\]"),
    ],
)
def test_raw_arrays_have_the_extents_that_the_plan_declares(backend: Any, least: Any, text: str) -> None:
    arrays, factor = _arrays(backend), {"factor": 1.0}
    Launch(SCALE, arrays, factor, **SPACE, extents={"lookup": (2, 2)})
    with pytest.raises(ValueError, match=text):
        Launch(SCALE, arrays, factor, **SPACE, extents=least)
    with pytest.raises(ValueError, match=text):
        backend.launch(SCALE, arrays, factor, {"lr": 1.0}, **SPACE, extents=least)


@pytest.mark.parametrize(
    "segments",
    [
        [(0, 4, 1.0)],
        [(0, 4, 1.0), (5, 8, 0.0)],
        [(0, 9, 1.0)],
        [(-1, 8, 1.0)],
        [(0, 5, 1.0), (4, 8, 1.0)],
        [(0, 8, 1.0), (8, 6, 1.0)],
        [],
    ],
)
def test_segments_are_all_columns(backend: Any, segments: Any) -> None:
    with pytest.raises(ValueError, match=r"segments .* of 8 columns; expected consecutive ranges"):
        backend.launch(SCALE, _arrays(backend), {"factor": 1.0}, {"lr": 1.0}, **SPACE, segments=segments)


def test_values_and_spaces_are_the_kernels(backend: Any) -> None:
    arrays, factor = _arrays(backend), {"factor": 1.0}
    for stepped in ({}, {"rate": 1.0}):
        with pytest.raises(TypeError, match=r"per-step values .*, expected \['lr'\]"):
            backend.launch(SCALE, arrays, factor, stepped, **SPACE)
    with pytest.raises(ValueError, match=r"index space of \(-1, 8\)"):
        backend.launch(SCALE, arrays, factor, {"lr": 1.0}, rows=-1, cols=8)
    backend.launch(SCALE, _arrays(backend, x=np.ones((0, 8))), factor, {"lr": 1.0}, rows=0, cols=8)


def test_what_is_read_only_is_not_written(backend: Any) -> None:
    if backend.xp is not np:
        pytest.skip("CuPy's arrays are all writable")
    locked = np.ones((4, 8))
    locked.flags.writeable = False
    backend.launch(DOUBLE, {"x": locked, "y": np.ones((4, 8))}, {}, **SPACE)
    for run in (
        lambda: backend.launch(DOUBLE, {"x": locked, "y": locked}, {}, **SPACE),
        lambda: backend.elementwise(DOUBLE, {"x": locked, "y": locked}, {}, {}),
        lambda: Gemm(np.ones((4, 8)), np.ones((8, 8)), locked),
    ):
        with pytest.raises(ValueError, match=r"array '[yc]' is read-only, but it is written"):
            run()


@pytest.mark.parametrize(
    "changed, error, text",
    [
        ({"y": np.ones((4, 7))}, ValueError, r"shapes 'x' \(4, 8\), 'y' \(4, 7\); expected equal ones"),
        ({"y": np.ones((4, 8), "float32")}, TypeError, "array 'y' is float32; expected float64"),
        ({"y": lambda _: 3.0}, TypeError, "array 'y' is float; expected a NumPy or CuPy array"),
    ],
)
def test_elementwise_refuses(backend: Any, changed: Any, error: Any, text: str) -> None:
    arrays = {"x": np.ones((4, 8)), "y": np.ones((4, 8)), **changed}
    arrays = {n: backend.asarray(a) if isinstance(a, np.ndarray) else a(backend) for n, a in arrays.items()}
    with pytest.raises(error, match=text):
        backend.elementwise(DOUBLE, arrays, {}, {})


@pytest.mark.parametrize(
    "a, b, c, error, text",
    [
        ((3, 4), (5, 6), (3, 6), ValueError, r"gemm of shapes \(3, 4\) and \(5, 6\) into \(3, 6\)"),
        ((3, 4), (4, 6), (3, 5), ValueError, r"gemm of shapes .* into \(3, 5\)"),
        ((4,), (4, 6), (1, 6), ValueError, r"array 'a' has shape \(4,\); expected 2-D"),
        (_view((3, 8), np.s_[:, ::2]), (4, 6), (3, 6), ValueError, "array 'a' has strides .* unit stride"),
        (_view((3, 4), np.s_[::-1]), (4, 6), (3, 6), ValueError, "array 'a' has strides .* ascending order"),
        (_view((3, 4), ..., "int64"), (4, 6), (3, 6), TypeError, "array 'a' is int64; expected float32 or"),
        ((3, 4), _view((4, 6), ..., "float32"), (3, 6), TypeError, "array 'b' is float32; expected float64"),
        ((3, 4), (4, 6), _view((3, 6), ..., "float32"), TypeError, "array 'c' is float32; expected float64"),
    ],
)
def test_products_refuse_what_does_not_fit(
    backend: Any, a: Any, b: Any, c: Any, error: Any, text: str
) -> None:
    arrays = [x(backend) if callable(x) else backend.zeros(x, "float64") for x in (a, b, c)]
    with pytest.raises(error, match=text):
        Gemm(*arrays)


def test_transposed_products_are_compared_as_they_are_used(backend: Any) -> None:
    zeros = backend.zeros
    Gemm(zeros((4, 3), "float64"), zeros((6, 4), "float64"), zeros((3, 6), "float64"), True, True)
    with pytest.raises(ValueError, match=r"gemm of shapes \(3, 4\)\^T and \(4, 6\) into \(3, 6\)"):
        Gemm(zeros((3, 4), "float64"), zeros((4, 6), "float64"), zeros((3, 6), "float64"), True)


def test_plans_need_the_values_of_their_kernels(backend: Any) -> None:
    op = Launch(SCALE, _arrays(backend), {"factor": 1.0}, **SPACE)
    with pytest.raises(ValueError, match=r"the step table has columns \['rate'\], not \['lr'\]"):
        backend.record([op], _steps(backend, ("rate",)))
    with pytest.raises(TypeError, match="computes in float64, the step table is float32"):
        backend.record([op], _steps(backend, dtype="float32"))
    backend.record([op], _steps(backend))


def test_arrays_of_another_executor_are_refused(backend: Any) -> None:
    """By launch, elementwise and record alike."""
    cuda = next((b for b in ("cuda",) if not gpumlp.backends.cuda_problem()), None)
    other = gpumlp.get_backend("numpy") if backend.xp is not np else cuda and gpumlp.get_backend(cuda)
    if other is None:
        pytest.skip("there is no other kind of array here")
    near, far = backend.zeros((4, 8), "float64"), other.zeros((4, 8), "float64")
    text = f"'y' is on {other.device}; expected an array on {backend.device}"
    arrays = {"x": near, "y": far}
    with pytest.raises(TypeError, match=text):
        backend.launch(DOUBLE, arrays, {}, **SPACE)
    with pytest.raises(TypeError, match=text):
        backend.elementwise(DOUBLE, arrays, {}, {})
    with pytest.raises(TypeError, match=text):
        backend.record([Launch(DOUBLE, arrays, {}, **SPACE)], _steps(backend))
    square = backend.zeros((8, 8), "float64")
    with pytest.raises(TypeError, match=f"gemm: array 'c' is on {other.device}"):
        backend.record([Gemm(near, square, far)], _steps(backend))
    with pytest.raises(TypeError, match="steps: array 'step' is on"):
        backend.record([], Steps(other))
