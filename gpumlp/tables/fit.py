"""From the rows of a table to a `Preparation`: the task, the classes, the scaling; and the split."""

from __future__ import annotations

import numpy as np

from gpumlp.tables.base import Table, TableError, counted
from gpumlp.tables.preparation import ROWS_AT_ONCE, Preparation, label_names, numbers_in, quantities, quoted

__all__ = ["detect_task", "fit_preparation", "split_table"]

_MIN_ROWS = 10  # in fewer rows, whole numbers say nothing
_MAX_CLASSES = 20  # more distinct whole numbers are taken for a quantity


def detect_task(y: np.ndarray) -> tuple[str, str]:
    """(task, reason) for ``--task auto``.

    It is classification if the target is text or True/False, or whole numbers of which at most 20 are
    distinct, in at least 10 rows and at least twice as many rows as distinct numbers; else regression.
    """
    values = numbers_in(y)
    if values is None:
        yes_no = {label.lower() for label in np.unique(y).tolist()} <= {"true", "false"}
        return "classification", f"the target is {'True/False' if yes_no else 'text'}"
    distinct = np.unique(values)
    if (distinct != np.floor(distinct)).any():
        return "regression", "the target has fractions"
    n = len(np.unique(y))
    if n > _MAX_CLASSES:
        return "regression", f"the target has {n} distinct whole numbers, more than {_MAX_CLASSES}"
    numbers = counted(n, "distinct whole number")
    if len(y) < max(_MIN_ROWS, 2 * n):
        return "regression", f"the target has {numbers} in only {counted(len(y), 'row')}"
    return "classification", f"the target has {numbers}"


def fit_preparation(table: Table, train: np.ndarray, task: str, loss: str, standardize: bool) -> Preparation:
    """The preparation for a table.

    Parameters
    ----------
    table : Table
    train : int array
        Numbers of the training rows; scaling is computed from these alone.
    task, loss : str
    standardize : bool
        Scale features, and a regression target, to mean 0 and standard deviation 1.  Pixels (uint8 arrays)
        are divided by their largest value instead: a standard deviation per pixel would blow up pixels that
        are nearly always 0.
    """
    y = table.y
    assert y is not None
    prep = Preparation(task, loss, features=list(table.names) if table.named else [], target=table.target)
    if task == "classification":
        prep.numeric_classes = y.dtype.kind != "U"
        if prep.numeric_classes:
            _refuse_quantity(table, y)
        names = np.unique(label_names(y, prep.numeric_classes))
        prep.classes = sorted(map(str, names), key=_size if prep.numeric_classes else None)
        if len(prep.classes) < 2:
            raise TableError(
                f"{table.source!r}: target {table.target!r} has one class only ({prep.classes[0]!r}); "
                "a classifier needs rows of at least two"
            )
        if len(prep.classes) == len(y) > 2:
            raise TableError(
                f"{table.source!r}: every row has a label of its own in target {table.target!r} "
                f"({quoted(prep.classes, 3)}); is this the right column? For a quantity use --task regression"
            )
    else:
        values = quantities(table, "but for regression it must be numbers")[train]
        if standardize and loss != "poisson":  # its logarithm wants counts as they are
            prep.target_mean, prep.target_scale = float(values.mean()), float(values.std()) or 1.0
    if standardize:
        n = table.X.shape[1]
        if table.X.dtype == np.uint8:
            mean, scale = np.zeros(n), np.full(n, max(1.0, float(table.X[train].max())))
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                mean, scale = _moments(table.X, train)
            if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
                name = table.names[int(np.argmin(np.isfinite(mean) & np.isfinite(scale)))]
                raise TableError(
                    f"{table.source!r}: the values of column {name!r} are too large to be standardised"
                )
        prep.mean, prep.scale = mean.tolist(), scale.tolist()
    return prep


def _size(label: str) -> float:
    return int(label) if label.removeprefix("-").isdigit() else float(label)


def _refuse_quantity(table: Table, y: np.ndarray) -> None:
    """Raise TableError for labels with fractions that are too many to be classes (a few levels are fine)."""
    distinct = np.unique(y)
    fractions = distinct[distinct != np.floor(distinct)]
    if len(fractions) and (len(distinct) > _MAX_CLASSES or 2 * len(distinct) > len(y)):
        raise TableError(
            f"{table.source!r}: target {table.target!r} has {len(distinct)} distinct numbers with fractions "
            f"(as {fractions[0]:g}) in {len(y)} rows; that is a quantity, not classes: use --task regression"
        )


def split_table(
    table: Table, seed: int, test: float, validation: float, *, ordered: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers for training, validation and test: consecutive parts of one seeded permutation, or of the
    table.

    Parameters
    ----------
    table : Table
    seed : int
        The permutation is ``numpy.random.default_rng([seed, 4]).permutation(n_rows)``: test rows first, then
        validation rows, then training rows.
    test, validation : float
        Fractions of all rows, rounded, at least one row unless 0.
    ordered : bool
        Training rows first, then validation rows, test rows last, in the table's order.
    """
    n_rows = len(table.X)
    order = np.arange(n_rows)[::-1] if ordered else np.random.default_rng([seed, 4]).permutation(n_rows)
    n_test, n_val = (max(1, round(f * n_rows)) if f > 0 else 0 for f in (test, validation))
    if n_rows - n_test - n_val < 2:
        held = {"test": n_test, "validation": n_val}
        parts = " and ".join(counted(n, f"{part} row") for part, n in held.items() if n)
        less = "".join(f" or --{part}-fraction 0" for part, n in held.items() if n)
        raise TableError(
            f"{table.source!r} has {counted(n_rows, 'row')}, too few for {f'{parts} and ' if parts else ''}"
            f"at least 2 for training; give more rows{less}"
        )
    test_rows, val_rows, train = np.split(order, [n_test, n_test + n_val])
    step = -1 if ordered else 1
    return train[::step], val_rows[::step], test_rows[::step]


def _moments(X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column (1 for a constant one), in float64, in two passes."""
    parts = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    mean = sum(X[p].sum(axis=0, dtype=np.float64) for p in parts) / len(rows)
    scale = np.sqrt(sum(np.square(X[p] - mean).sum(axis=0) for p in parts) / len(rows))
    # a constant column's mean may be off by an ulp; that is no spread
    return mean, np.where(scale > 1e-12 * np.abs(mean), scale, 1.0)
