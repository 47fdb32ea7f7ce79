"""What people have in memory, as typed columns."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pytest

from gpumlp.tables import Frame, TableError, as_frame

NAN = float("nan")


def shown(column):
    """(kind, values as Python has them, None where missing)."""
    if column.kind in ("text", "category"):
        return column.kind, column.texts().tolist()
    values = column.values.tolist()
    gone = [False] * len(values) if column.missing is None else column.missing.tolist()
    return column.kind, [None if g else v for v, g in zip(values, gone, strict=True)]


DAY = datetime.datetime(2020, 1, 31)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2, 3], "number", [1, 2, 3]),
        ([1, None, 3], "number", [1, None, 3]),
        ([1.5, NAN, 3], "number", [1.5, None, 3.0]),
        ([decimal.Decimal("1.5"), None, 2], "number", [1.5, None, 2.0]),
        ([2**63 - 1, 0, 1], "number", [2**63 - 1, 0, 1]),
        ([True, False, None], "boolean", [True, False, None]),
        (["a", None, "b"], "text", ["a", None, "b"]),
        (["1", "007", NAN], "text", ["1", "007", None]),
        (["a", 1, 2.5], "text", ["a", "1", "2.5"]),
        ([None, None, NAN], "number", [None] * 3),
        ([DAY, None, DAY], "date", [DAY, None, DAY]),
        ([DAY.date(), np.datetime64("NaT"), DAY.date()], "date", [DAY, None, DAY]),
        (np.array([1, 2, 3], ">i2"), "number", [1, 2, 3]),
        (np.array([1, 2, NAN], np.float16), "number", [1, 2, None]),
        (np.array([2**64 - 1, 0, 1], np.uint64), "number", [2**64 - 1, 0, 1]),
        (np.array(["2020-01-31", "NaT", "2020-01-31"], "datetime64[D]"), "date", [DAY, None, DAY]),
        (np.array([1, 2, 3], "timedelta64[m]"), "number", [60, 120, 180]),
        (np.array(["x", "y", "x"]), "text", ["x", "y", "x"]),
        (np.array([b"x", b"y", b"x"]), "text", ["x", "y", "x"]),
    ],
)
def test_dicts_of_columns(values, kind, expected):
    assert shown(as_frame({"a": values})["a"]) == (kind, expected)


def test_arrays_and_lists_of_rows():
    frame = as_frame(np.arange(6, dtype=">f4").reshape(3, 2))
    assert frame.names == ["x0", "x1"] and not frame.named
    assert shown(frame["x1"]) == ("number", [1, 3, 5])
    frame = as_frame([[1, "a"], [2, None]], names=["n", "t"])
    assert shown(frame["n"]) == ("number", [1, 2]) and shown(frame["t"]) == ("text", ["a", None])


def test_arrays_are_not_copied():
    X = np.asfortranarray(np.random.default_rng(0).normal(size=(5, 2)))
    assert np.shares_memory(as_frame(X)["x1"].values, X)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ([1, 2], ValueError, "Reshape your data"),
        (np.zeros((2, 2), complex), ValueError, "Complex data not supported"),
        ({"a": [1], "b": [1, 2]}, ValueError, "column 'b' has 2 rows, column 'a' has 1"),
        ({"a": [{}]}, TypeError, "column 'a' holds a dict; each argument must be a string"),
        ({}, ValueError, "no columns"),
        (np.ma.masked_array(np.zeros((2, 2))), TypeError, "masked"),
        ([[1, 2], [3]], ValueError, "rows of different lengths"),
        (None, ValueError, "two dimensions"),
    ],
)
def test_what_is_no_table(data, kind, message):
    with pytest.raises(kind, match=message):
        as_frame(data)


def test_a_series_and_a_lazy_frame():
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    for series in (pd.Series([1.0, 2], name="a"), pl.Series("a", [1.0, 2])):
        with pytest.raises(ValueError, match=r"a Series; pass a table: X.to_frame\(\)"):
            as_frame(series)
        assert as_frame(series.to_frame()).names == ["a"]
    lazy = pl.LazyFrame({"a": [1.0, 2]})
    with pytest.raises(TypeError, match=r"lazy frame.*pass X.collect\(\)"):
        as_frame(lazy)
    assert as_frame(lazy.collect()).names == ["a"]


def test_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "i": [1, 2, 3],
            "I": pd.array([1, None, 3], "Int64"),
            "f": [1.5, None, 3],
            "b": pd.array([True, None, False], "boolean"),
            "s": ["a", None, "b"],
            "c": pd.Categorical(["x", None, "y"], categories=["y", "z", "x"]),
            "t": pd.to_datetime([DAY, None, DAY]),
            "z": pd.to_datetime([DAY] * 3).tz_localize("Europe/Berlin"),
            "d": pd.to_timedelta([1, None, 3], "s"),
            7: [1, 2, 3],
        },
        index=[5, 5, 2],
    )
    expected = {
        "i": ("number", [1, 2, 3]),
        "I": ("number", [1, None, 3]),
        "f": ("number", [1.5, None, 3.0]),
        "b": ("boolean", [True, None, False]),
        "s": ("text", ["a", None, "b"]),
        "c": ("category", ["x", None, "y"]),
        "t": ("date", [DAY, None, DAY]),
        "z": ("date", [datetime.datetime(2020, 1, 30, 23)] * 3),
        "d": ("number", [1.0, None, 3.0]),
        "7": ("number", [1, 2, 3]),
    }
    assert {column.name: shown(column) for column in as_frame(frame).columns} == expected
    assert as_frame(frame)["c"].words == ["y", "z", "x"]
    pytest.importorskip("pyarrow")
    backed = frame.drop(columns=7).convert_dtypes(dtype_backend="pyarrow")
    found = {column.name: shown(column) for column in as_frame(backed).columns}
    assert found == {name: value for name, value in expected.items() if name != "7"}
    with pytest.raises(TableError, match=r"column name 'i' is there 2 times"):
        as_frame(frame[["i", "f", "i"]])


def test_polars_and_narwhals():
    pl = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    frame = pl.DataFrame(
        {
            "i": [1, None, 3],
            "s": ["a", None, "b"],
            "c": pl.Series(["x", None, "y"], dtype=pl.Categorical),
            "d": [DAY.date(), None, DAY.date()],
            "t": [datetime.time(5, 1), None, datetime.time(6)],
            "n": pl.Series(["1.5", None, "2"]).cast(pl.Decimal(10, 2)),
        }
    )
    expected = {
        "i": ("number", [1, None, 3]),
        "s": ("text", ["a", None, "b"]),
        "c": ("category", ["x", None, "y"]),
        "d": ("date", [DAY, None, DAY]),
        "t": ("date", [datetime.datetime(1970, 1, 1, 5, 1), None, datetime.datetime(1970, 1, 1, 6)]),
        "n": ("number", [1.5, None, 2.0]),
    }
    for given in (frame, frame.to_arrow(), frame.lazy().collect()):
        assert {column.name: shown(column) for column in as_frame(given).columns} == expected
    narwhals = pytest.importorskip("narwhals")
    assert shown(as_frame(narwhals.from_native(frame))["s"]) == expected["s"]


def test_polars_without_pyarrow(no_pyarrow):
    pl = pytest.importorskip("polars")
    frame = as_frame(
        pl.DataFrame({"i": [1, 2], "s": ["a", None], "c": pl.Series(["x", "y"], dtype=pl.Categorical)})
    )
    assert shown(frame["i"]) == ("number", [1, 2])
    assert shown(frame["s"]) == ("text", ["a", None]) and shown(frame["c"]) == ("category", ["x", "y"])


def test_arrow_memory_is_used():
    pa = pytest.importorskip("pyarrow")
    array = pa.array(np.arange(5.0))
    frame = as_frame(pa.table({"a": array}))
    assert np.shares_memory(frame["a"].values, np.frombuffer(array.buffers()[1]))
    sliced = as_frame(pa.table({"a": array, "b": [True, None, False, True, None]}).slice(1, 3))
    assert shown(sliced["a"]) == ("number", [1, 2, 3]) and shown(sliced["b"]) == (
        "boolean",
        [None, False, True],
    )
    nested = pa.table(
        {"a": pa.chunked_array([[1, None], [3]]), "d": pa.array(["x", None, "y"]).dictionary_encode()}
    )
    assert shown(as_frame(nested)["a"]) == ("number", [1, None, 3])


def test_frames_select_and_take():
    frame = as_frame({"a": [1, 2, 3], "b": ["x", None, "y"]})
    assert as_frame(frame) is frame and len(frame) == 3 and "a" in frame and "c" not in frame
    part = frame.select(["b", "a"]).take(np.array([2, 0]))
    assert part.names == ["b", "a"] and shown(part["b"]) == ("text", ["y", "x"]) and part["b"].missing is None
    assert len(frame.take(np.array([True, False, True]))) == 2
    for wrong in (lambda: frame["c"], lambda: frame.select(["c"])):
        with pytest.raises(KeyError, match="unknown column 'c'"):
            wrong()
    with pytest.raises(ValueError, match="has 3 rows, the table 2"):
        Frame(frame.columns, 2)
