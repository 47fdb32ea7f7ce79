"""`TabularClassifier` and `TabularRegressor` as ONNX graphs: raw columns in, labels or values out.

Each column is an input (rows, 1) with its name: numbers, truth values (1 and 0) and dates (seconds since
1970) are float64, NaN where missing; texts and categories are strings without blanks around, empty where
missing, and numbers that are categories in their shortest form: "3", not "3.0".  (Our own predictions look
for such a number where they do not find the text; a graph cannot.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.export.graph import Graph
from gpumlp.export.models import answers
from gpumlp.tabular.columns import Category, Codes, Date, Flag, Number

__all__ = ["write_tabular"]

_DAY = 86400.0  # seconds


def write_tabular(graph: Graph, est: Any) -> None:
    """Inputs, encoding, networks and outputs of a fitted estimator."""
    encoder = est.encoder_
    numbers: list[str] = []
    codes: list[str] = []
    others: list[str] = []
    double = graph.doubles()
    for name, column in encoder.columns.items():
        if isinstance(column, (Category, Codes)):
            texts = graph.input(name, 1, str)
            (codes if isinstance(column, Codes) else others).append(_category(graph, texts, column))
            continue
        x = graph.input(name, 1, np.float64)
        if isinstance(column, Flag):
            middle = (column.low + column.high) / 2
            sign = double.node("Sign", double.node("Sub", x, double.constant(middle)))
            others.append(_where_there(double, x, sign))
            continue
        parts = _date(double, x, column) if isinstance(column, Date) else [(x, column)]
        for value, number in parts:
            numbers.append(_where_there(double, x, _interpolated(double, value, number)))
            if number.indicator:
                others.append(double.node("Cast", double.node("IsNaN", x), to=1))
    matrix = [*numbers, *codes, *others]
    inputs = matrix[0] if len(matrix) == 1 else graph.node("Concat", *matrix, axis=1)
    members, output = est.ensemble_.members(), est.ensemble_.output
    classes = getattr(est, "classes_", None)
    if classes is not None:
        answers(graph, members, output, inputs, classes)
    else:
        answers(graph, members, output, inputs, units=lambda value: _units(graph, value, est))


def _units(graph: Graph, value: str, est: Any) -> str:
    """In the target's units, within what was trained on."""
    scaled = graph.node("Mul", value, graph.constant(est.target_scale_))
    moved = graph.node("Add", scaled, graph.constant(est.target_mean_))
    low, high = (graph.constant(limit) for limit in est.target_range_)
    return graph.node("Min", graph.node("Max", moved, low), high)


def _where_there(double: Graph, x: str, value: str) -> str:
    """`value` as float32, 0 where `x` is NaN."""
    kept = double.node("Where", double.node("IsNaN", x), double.constant(0.0), value)
    return double.node("Cast", kept, to=1)


def _interpolated(double: Graph, x: str, number: Number) -> str:
    """The normal score of each value: a line between two points, see `quantiles_of`."""
    points, scores = number.points, number.scores
    kept = double.node("Min", double.node("Max", x, double.constant(points[0])), double.constant(points[-1]))
    if len(points) == 1:
        return double.node("Add", double.node("Mul", kept, double.constant(0.0)), double.constant(scores[0]))
    above = double.node(
        "Cast", double.node("GreaterOrEqual", kept, double.constant(points[None, 1:-1])), to=7
    )
    place = double.node("ReduceSum", above, double.constant([1], np.int64), keepdims=1)
    slopes = np.diff(scores) / np.diff(points)
    at, start, slope = (
        double.node("Gather", double.constant(part), place, axis=0)
        for part in (points[:-1], scores[:-1], slopes)
    )
    return double.node("Add", start, double.node("Mul", double.node("Sub", kept, at), slope))


def _category(graph: Graph, texts: str, column: Category | Codes) -> str:
    """One input for each category, or a code."""
    places, other, lacking = column.places()
    places.setdefault("", lacking)
    for word in {"True", "False"} & places.keys():
        places = {word.lower(): places[word], word.upper(): places[word], **places}
    code = graph.node(
        "LabelEncoder",
        texts,
        domain="ai.onnx.ml",
        keys_strings=list(places),
        values_int64s=list(places.values()),
        default_int64=other,
    )
    if isinstance(column, Codes):
        return graph.node("Cast", code, to=1)
    flat = graph.node("Squeeze", code, graph.constant([1], np.int64))
    depth, values = graph.constant(column.width + 1, np.int64), graph.constant([0, 1], np.float32)
    hot = graph.node("OneHot", flat, depth, values, axis=1)
    return graph.node("Gather", hot, graph.constant(range(column.width), np.int64), axis=1)


def _date(double: Graph, seconds: str, date: Date) -> list[tuple[str, Number]]:
    """The parts of a date, by the calendar (H. Hinnant, "chrono-compatible low-level date algorithms")."""

    def of(kind: str, a: str, b: Any) -> str:
        return double.node(kind, a, b if isinstance(b, str) else double.constant(float(b)))

    def whole(a: str, b: float) -> str:
        return double.node("Floor", of("Div", a, b))

    days = whole(seconds, _DAY)
    shifted = of("Add", days, 719468)  # from 1 March of year 0
    era = whole(shifted, 146097)
    day = of("Sub", shifted, of("Mul", era, 146097))
    leaps = of("Sub", of("Add", of("Sub", day, whole(day, 1460)), whole(day, 36524)), whole(day, 146096))
    year = whole(leaps, 365)  # of the era, from March
    before = of("Sub", of("Add", of("Mul", year, 365), whole(year, 4)), whole(year, 100))
    march = of("Sub", day, before)  # days since 1 March
    month = whole(of("Add", of("Mul", march, 5), 2), 153)
    month_day = of("Sub", march, whole(of("Add", of("Mul", month, 153), 2), 5))

    def multiple(n: int) -> str:
        """1 in years that are a multiple of `n`; an era has 400."""
        rest = of("Sub", year, of("Mul", whole(year, n), n))
        return double.node("Cast", double.node("Equal", rest, double.constant(0.0)), to=11)

    leap = of("Add", of("Sub", multiple(4), multiple(100)), multiple(400))
    late = double.node("Less", month, double.constant(10.0))
    year_day = double.node("Where", late, of("Add", of("Add", march, leap), 59), of("Sub", march, 306))
    monday = of("Add", days, 3)
    parts = {
        "trend": of("Div", seconds, _DAY),
        "year day": year_day,
        "month day": month_day,
        "week day": of("Sub", monday, of("Mul", whole(monday, 7), 7)),
        "day hour": of("Div", of("Sub", seconds, of("Mul", days, _DAY)), _DAY / 24),
    }
    return [(parts[name], number) for name, number in date.parts.items()]
