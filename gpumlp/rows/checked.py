"""Checks of X, y and weights, with messages for the people who passed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.backends import Backend
from gpumlp.backends.arrays import is_cuda
from gpumlp.kernels.kernel import FIXED
from gpumlp.kernels.losses import Loss
from gpumlp.rows.arrays import array_module, check_range, read_array
from gpumlp.rows.order import split_rows
from gpumlp.rows.rows import Rows
from gpumlp.rows.source import Piece, RowSource
from gpumlp.rows.weights import piece_weights, scaled_weights
from gpumlp.rows.windows import SourceRows

__all__ = [
    "check_features",
    "check_given",
    "check_rows",
    "check_targets",
    "check_two_classes",
    "check_weights",
    "split_validation",
]

MOST_ROWS = 2**31 - 1  # row numbers are int32


def _cast(name: str, x: Any, dtype: np.dtype) -> Any:
    """`x` as `dtype`, all finite."""
    check_range(name, x, dtype)
    return x.astype(dtype, copy=False)


def check_features(
    X: Any,
    n_inputs: int,
    backend: Backend,
    dtype: np.dtype,
    name: str = "X",
    categories: Mapping[int, int] = MappingProxyType({}),
    look: bool = True,
) -> Any:
    """`X` as a C-contiguous array (n, n_inputs), on the device if it came from there, else on the host.

    It keeps its dtype, and is not copied, if `kernels.rows.gather_kernel` can read it; else it is converted
    to `dtype`, the model's.  All values are finite as `dtype`.  Objects and complex numbers are refused, and
    so is a column of `categories` (column: how many) that holds anything but their codes.  Without `look` the
    values are not looked at, which for those on a device means waiting for it: kernels may read any.
    """
    X = read_array(name, X)
    if is_cuda(X):
        if backend.name != "cuda":
            raise TypeError(
                f"{name} is on a CUDA device but the model is on {backend.device}; use "
                f"model.to('cuda') or {name}.get()"
            )
        X = backend.asarray(X)
    if X.ndim != 2:
        hint = ""
        if X.ndim == 1 and n_inputs == 1:
            hint = f"; for one feature use {name}.reshape(-1, 1)"
        elif X.shape == (n_inputs,):
            hint = f"; for one row use {name}.reshape(1, -1)"
        raise ValueError(
            f"{name} has {X.ndim} dimension(s), shape {tuple(X.shape)}; expected 2: "
            f"(n_rows, {n_inputs}){hint}"
        )
    if X.shape[0] > MOST_ROWS:
        raise ValueError(
            f"{name} has {X.shape[0]} rows; row numbers are 32-bit integers, so at most {MOST_ROWS} rows can "
            "be given at a time: train on parts of them"
        )
    if X.shape[1] != n_inputs:
        raise ValueError(f"{name} has {X.shape[1]} features (columns), the network was built for {n_inputs}")
    if look:
        check_range(name, X, dtype)
        for column, count in categories.items():
            _check_codes(f"{name}[:, {column}]", X[:, column], count)
    if X.dtype.kind == "b":
        X = X.view(np.uint8)
    plain = X.flags.c_contiguous and getattr(X.flags, "aligned", True)  # CuPy's are always aligned
    if plain and X.dtype.name in FIXED and X.dtype.isnative:
        return X
    return X.astype(dtype, order="C")


def _check_codes(name: str, codes: Any, count: int) -> None:
    """ValueError unless all are whole numbers from 0 to count - 1."""
    if not len(codes):
        return
    low, high = codes.min(), codes.max()
    fractions = codes.dtype.kind == "f" and bool((codes != array_module(codes).floor(codes)).any())
    if fractions or low < 0 or high >= count:
        held = "fractions" if fractions else f"numbers from {_short(int(low))} to {_short(int(high))}"
        raise ValueError(
            f"{name} holds {held}; the network embeds this column as {count} categories, so it needs whole "
            f"numbers 0..{count - 1}"
        )


def check_targets(
    y: Any,
    n_rows: int,
    n_outputs: int,
    loss: Loss,
    backend: Backend,
    dtype: np.dtype,
    name: str = "y",
    X: Any = None,
    look: bool = True,
    labels: bool = True,
) -> Any:
    """`y` as int32 (n,) for class losses, else `dtype` (n, n_outputs); on the device if it
    came from there, else on the host.

    Without `look`, values that are not class numbers are not looked at; without `labels`, whole class numbers
    are not either, and those that the network does not have stay such: kernels must not read them."""
    advice = f"number the classes with `classes, {name} = numpy.unique({name}, return_inverse=True)`"
    y = read_array(name, y, f"{advice}, or use gpumlp.MLPClassifier" if loss.metric == "accuracy" else "")
    if X is not None and is_cuda(X) != is_cuda(y):
        raise TypeError(
            f"X is {'CuPy' if is_cuda(X) else 'NumPy'} but {name} is {'CuPy' if is_cuda(y) else 'NumPy'}; "
            "pass both from the same device"
        )
    if is_cuda(y):
        y = backend.asarray(y)
    if y.shape[:1] != (n_rows,):
        raise ValueError(
            f"X has {n_rows} rows but {name} has {y.shape[0] if y.ndim else 0}; they must be equal"
        )
    xp = array_module(y)
    if look or loss.classes:
        check_range(name, y, np.dtype(np.float64))
    if loss.classes:
        return _class_numbers(y, n_outputs, name, loss, xp, labels)
    if y.ndim == 1:
        y = y.reshape(-1, 1)
    if loss.levels and (y.ndim != 2 or y.shape[1] != 1):
        raise ValueError(
            f"{name} has shape {tuple(y.shape)}; {loss.name} learns quantiles of one target: expected "
            f"({n_rows},)"
        )
    n_outputs = loss.targets(n_outputs)
    if y.ndim != 2 or y.shape[1] != n_outputs:
        raise ValueError(
            f"{name} has shape {tuple(y.shape)}, the network has {n_outputs} outputs; expected "
            f"({n_rows}, {n_outputs})" + (f" or ({n_rows},)" if n_outputs == 1 else "")
        )
    y = _cast(name, y, dtype) if look else y.astype(dtype, copy=False)
    if look and n_rows and loss.link == "sigmoid" and not (float(y.min()) >= 0 and float(y.max()) <= 1):
        raise ValueError(
            f"{name} has values from {float(y.min()):g} to {float(y.max()):g}; "
            "binary_cross_entropy needs targets between 0 and 1"
        )
    if look and n_rows and loss.link == "exp" and float(y.min()) < 0:
        raise ValueError(
            f"{name} has negative values ({float(y.min()):g}); poisson needs counts or rates >= 0"
        )
    return y if y.flags.c_contiguous else y.copy(order="C")


def _class_numbers(y: Any, n_outputs: int, name: str, loss: Loss, xp: Any, look: bool = True) -> Any:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(
            f"{name} has shape {tuple(y.shape)}; {loss.name} needs class numbers of shape (n_rows,): "
            f"for one-hot rows pass {name}.argmax(axis=1)"
        )
    if not len(y):
        return y.astype(np.int32)
    if not look and y.dtype.kind != "f":
        if y.dtype.itemsize > 4:  # none becomes another one that there is
            y = xp.minimum(y if y.dtype.kind == "u" else xp.maximum(y, -1), n_outputs)
        return y.astype(np.int32, order="C", copy=False)
    if y.dtype.kind == "f" and bool((y != xp.floor(y)).any()):
        raise ValueError(f"{name} holds fractions; {loss.name} needs whole class numbers 0..{n_outputs - 1}")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= n_outputs:
        raise ValueError(
            f"{name} has class numbers from {_short(low)} to {_short(high)}; a network with {n_outputs} "
            f"outputs needs 0..{n_outputs - 1}"
        )
    return y.astype(np.int32, order="C")  # always a copy: kernels index by what was checked here


def _short(number: int) -> str:
    """Its digits, if there are not hundreds."""
    return str(number) if abs(number) < 2**64 else f"{number:g}"


def check_two_classes(y: Any) -> None:
    """ValueError if all class numbers are equal."""
    if bool((y == y[0]).all()):
        raise ValueError(
            f"y holds one class only ({int(y[0])}); a classifier needs rows of at least two classes"
        )


def check_weights(
    w: Any, n_rows: int, backend: Backend, dtype: np.dtype, name: str = "sample_weight"
) -> np.ndarray | None:
    """`w` as a host array (n,) of `dtype`, finite and >= 0; None stays None.  Only their proportions count:
    see `scaled_weights`."""
    if w is None:
        return None
    w = read_array(name, w)
    if is_cuda(w):
        w = backend.to_numpy(backend.asarray(w))
    if w.shape != (n_rows,):
        raise ValueError(f"{name} has shape {tuple(w.shape)}; expected ({n_rows},), one weight per row")
    check_range(name, w, np.dtype(np.float64))
    return np.ascontiguousarray(scaled_weights(w, name).astype(dtype, copy=False))


def check_rows(
    model: Any,
    loss: Loss,
    X: Any,
    y: Any,
    w: Any = None,
    suffix: str = "",
    look: bool = True,
    labels: bool = True,
) -> Rows:
    """At least one row, fit for `model` and `loss`: `check_features`, `check_targets`, `check_weights`."""
    n_in, codes = model.layer_sizes[0], model.categories
    X = check_features(X, n_in, model.backend, model.dtype, f"X{suffix}", codes, look)
    if X.shape[0] == 0:
        raise ValueError(f"X{suffix} has no rows; expected at least one")
    n_out = model.layer_sizes[-1]
    y = check_targets(y, X.shape[0], n_out, loss, model.backend, model.dtype, f"y{suffix}", X, look, labels)
    return Rows(X, y, check_weights(w, X.shape[0], model.backend, model.dtype))


def check_given(
    model: Any, loss: Loss, X: Any, y: Any = None, w: Any = None, suffix: str = "", look: bool = True
) -> Rows | SourceRows:
    """`check_rows`, or if `X` is a source its rows, of which the first are read and checked now.  Values of a
    source are always looked at."""
    if not isinstance(X, RowSource):
        return check_rows(model, loss, X, y, w, suffix, look)
    name, n_in = f"X{suffix}", model.layer_sizes[0]
    if y is not None or w is not None:
        raise TypeError(
            f"{name} is a {type(X).__name__}, which has targets and weights of its own; expected no "
            + ("y" if y is not None else "sample_weight")
        )
    if X.n_features != n_in:
        raise ValueError(f"{name} has {X.n_features} features (columns), the network was built for {n_in}")
    if not X.n_rows:
        raise ValueError(f"{name} has no rows; expected at least one")
    X.window_rows()  # an attribute that a person may set; so are these
    for size in X.groups:
        checks.whole(f"{name}.groups", size, 0, MOST_ROWS)

    def check(piece: Piece) -> Rows:
        return _check_piece(model, loss, piece)

    like = Rows(np.zeros((1, n_in), model.dtype), np.zeros(1))
    group = next(g for g, size in enumerate(X.groups) if size)
    first = next(SourceRows(X, like, check).rows(group))
    arrays = (None if a is None else a[:1].copy() for a in (first.X, first.y, first.w))
    return SourceRows(X, Rows(*arrays), check)


def _check_piece(model: Any, loss: Loss, piece: Piece) -> Rows:
    """Some rows of a source, in the types in which they are kept."""
    X, y, w = piece
    if y is None:
        raise ValueError("there are no targets; a source for training and evaluation needs them (target=)")
    rows = check_rows(model, loss, X, y)
    if w is not None:
        if w.shape != (rows.n_rows,):
            raise ValueError(f"the weights have shape {w.shape}; expected ({rows.n_rows},)")
        w = piece_weights(read_array("weight", w)).astype(model.dtype)
    return Rows(rows.X.astype(model.dtype, copy=False), rows.y, w)


def split_validation(
    model: Any, loss: Loss, rows: Any, validation: Any, seed: int, look: bool = True
) -> tuple[Any, Any]:
    """(training rows, validation rows or None) for the `validation` argument of `Trainer.fit`, or for rows
    that have been checked.  Each is `Rows` or `SourceRows`."""
    if validation is None or isinstance(validation, (Rows, SourceRows)):
        return rows, validation
    if isinstance(validation, (tuple, list)):
        if len(validation) not in (2, 3):
            raise ValueError(
                f"validation has {len(validation)} parts; expected (X_val, y_val) or (X_val, y_val, weights)"
            )
        X, y, w = (*validation, None)[:3]
        return rows, check_rows(model, loss, X, y, w, "_val", look)
    try:
        fraction = checks.number("validation", validation)
    except ValueError:
        what = f"validation={validation!r}"
        if hasattr(validation, "shape"):
            what = f"validation is one {type(validation).__name__} of shape {tuple(validation.shape)}"
        elif len(what) > 80:
            what = f"validation is a {type(validation).__name__}"
        raise ValueError(
            f"{what}; expected a fraction, (X_val, y_val), (X_val, y_val, weights) or None"
        ) from None
    if isinstance(rows, SourceRows):
        return rows.split(fraction, seed)
    w = None if rows.weights is None else rows.take(rows.weights)
    train, held = split_rows(seed, rows.n_rows, fraction, w)
    if rows.index is not None:
        train, held = rows.index[train], rows.index[held]
    return replace(rows, index=train), replace(rows, index=held)
