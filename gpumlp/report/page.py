"""The page: sections in the order in which they are read."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpumlp.files.atomic import PathLike, replacing
from gpumlp.report import pictures
from gpumlp.report.judge import Answers, answers_of, calibration, figures, importances
from gpumlp.tables import Column, Frame, as_frame
from gpumlp.version import __version__

__all__ = ["report_html", "write_report"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p.sub { color: #666; margin-top: 0; } table { border-collapse: collapse; font-size: .88rem; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e4e4e4;
         vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } li { margin: .2rem 0; }
"""

#: figures, as people call them
_WORDS = {
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "auc": "area under the ROC curve",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
}


def write_report(path: PathLike, estimator: Any, X: Any, y: Any, **options: Any) -> None:
    """Write `report_html` to a file, atomically."""
    text = report_html(estimator, X, y, **options)
    with replacing(path) as file:
        file.write(text.encode())


def report_html(
    estimator: Any, X: Any, y: Any, *, title: str = "", sample_weight: Any = None, seed: int = 0
) -> str:
    """A page about a fitted `TabularClassifier` or `TabularRegressor`.

    It has figures on the given rows beside those of the validation rows and of a constant prediction, curves,
    the confusion matrix or predicted against true values, calibration, permutation importance, what was seen
    in the columns, the networks, settings and versions.

    Parameters
    ----------
    estimator : TabularClassifier or TabularRegressor
        Fitted.
    X, y : table (n, n_columns) and targets (n,)
        Rows that it was not trained on.
    title : str
    sample_weight : array (n,), optional
        For the figures.
    seed : int
        Of the permutations.

    Returns
    -------
    str
        HTML that needs no other file and no network.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> from gpumlp.report import report_html
    >>> X = np.random.default_rng(0).normal(size=(80, 2))
    >>> regressor = gpumlp.TabularRegressor(quality="fast", random_state=0, device="cpu")
    >>> "<svg" in report_html(regressor.fit(X[:60], X[:60, 0]), X[60:], X[60:, 0])
    True
    """
    frame, w = as_frame(X), None if sample_weight is None else np.asarray(sample_weight, np.float64)
    answers = answers_of(estimator, frame, np.asarray(y))
    kind = "classes" if answers.p is not None else "values"
    heading = title or f"{type(estimator).__name__}: {kind} of a table"
    what, found = importances(estimator, frame, answers.y, seed=seed)
    sections = [
        ("Figures", _figures(estimator, figures(answers, w), frame.n_rows)),
        ("What was noticed", _list(estimator.notes_)),
        ("Learning curves", _curves(estimator)),
        ("Confusion matrix" if answers.p is not None else "Predicted against true", _picture(answers)),
        ("Calibration", pictures.calibration_picture(calibration(answers), answers.p is not None)),
        ("What the columns are worth", pictures.importance_picture(found, what)),
        ("Columns", _columns(estimator, frame)),
        ("Networks", _networks(estimator)),
        ("Settings and versions", _settings(estimator)),
    ]
    body = "\n".join(f"<section><h2>{name}</h2>\n{part}</section>" for name, part in sections if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(heading)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{_text(heading)}</h1>\n"
        f'<p class="sub">{frame.n_rows:,} rows, {len(frame.columns):,} columns · gpumlp {__version__}</p>\n'
        f"{body}\n</body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _number(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.5g}"
    return (
        f"{value:,}" if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else _text(value)
    )


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (int, float, np.number)) and not isinstance(cell, bool)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Numbers stand to the right, and so does what is above them."""
    rows = list(rows)
    right = [any(_is_number(row[n]) for row in rows) for n in range(len(header))]
    kinds = [' class="n"' if is_right else "" for is_right in right]
    head = "".join(f"<th{kind}>{_text(name)}</th>" for name, kind in zip(header, kinds, strict=True))
    lines = [
        "<tr>"
        + "".join(f"<td{kind}>{_number(cell)}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    ]
    body = "".join(lines)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _list(items: Sequence[Any]) -> str:
    return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>" if items else ""


def _figures(estimator: Any, given: dict[str, float], n_rows: int) -> str:
    held = estimator.validation_scores_
    rows = [
        [_WORDS[key], value, held.get(key, ""), held.get(f"constant_{key}", "")]
        for key, value in given.items()
    ]
    note = (
        "<p>The validation rows chose the networks, so new rows do slightly worse. The constant is the best "
        "answer that does not look at the columns.</p>"
    )
    header = ["figure", f"these {n_rows:,} rows", "validation rows", "constant, validation rows"]
    return _table(header, rows) + (note if held else "")


def _curves(estimator: Any) -> str:
    curves = getattr(estimator, "curves_", [])  # not of an estimator that was loaded from a file
    if not any(curves):
        return ""
    chosen = [bool(network.get("times", 1)) for network in estimator.networks_]
    figure = "log loss" if hasattr(estimator, "classes_") else "loss"
    note = "" if all(chosen) else "<p>In blue: networks of the ensemble.</p>"
    return pictures.curves_picture(curves, chosen, figure) + note


def _picture(answers: Answers) -> str:
    return pictures.values_picture(answers) if answers.p is None else pictures.confusion_picture(answers)


def _columns(estimator: Any, frame: Frame) -> str:
    rows = []
    for column in frame.columns:
        missing = 0 if column.missing is None else int(column.missing.sum())
        rows.append([column.name, estimator.columns_.get(column.name, ""), missing, *_content(column)])
    return _table(["column", "taken as", "missing", "distinct", "values"], rows)


def _content(column: Column) -> tuple[int, str]:
    """Number of distinct values, and some of them."""
    values = column.values if column.missing is None else column.values[~column.missing]
    found, counts = np.unique(values, return_counts=True)
    if not len(found):
        return 0, ""
    if column.kind in ("text", "category"):
        common = found[np.argsort(-counts, kind="stable")[:4]]
        words = ", ".join(repr(column.words[code])[1:-1][:30] for code in common)
        return len(found), words + (", …" if len(found) > 4 else "")
    if column.kind == "date":
        first, last = (str(found[place]).removesuffix("T00:00:00.000000") for place in (0, -1))
    else:
        first, last = (_number(found[place].item()) for place in (0, -1))
    return len(found), f"{first} to {last}"


def _networks(estimator: Any) -> str:
    networks = estimator.networks_
    if not networks:
        return ""
    names = list(dict.fromkeys(name for one in networks for name in one))
    rows = [
        [str(one[name]) if name == "seed" else _plain(one.get(name, "")) for name in names]
        for one in networks
    ]
    return _table([name.replace("_", " ") for name in names], rows)


def _plain(value: Any) -> Any:
    """Numbers as they are, everything else as a short text."""
    if isinstance(value, (list, tuple)):
        return "-".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_number(part)}" for name, part in value.items())
    return value


def _settings(estimator: Any) -> str:
    rows: list[list[str]] = [[name, repr(value)] for name, value in estimator.get_params(deep=False).items()]
    ensemble = estimator.ensemble_
    rows += [
        ["networks that answer", str(len(ensemble.members()))],
        ["parameters", f"{ensemble.n_params:,}"],
        ["device of training", str(ensemble.models[0].device)],
        ["gpumlp", __version__],
        ["NumPy", np.__version__],
        ["Python", platform.python_version()],
    ]
    return _table(["setting", "value"], rows)
