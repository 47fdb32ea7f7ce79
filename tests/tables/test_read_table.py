"""Reading tables: what is understood, and that every refusal names file, line and column."""

from __future__ import annotations

import gzip
import os

import numpy as np
import pytest

from gpumlp.tables import TableError, read_table
from gpumlp.tables import csv as tables_csv


def table(tmp_path, text: str | bytes, **options):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_table(str(path), **{"target": "y", **options})


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(tmp_path, delimiter):
    t = table(tmp_path, "a,b,y\n1,2,u\n3,4.5e1,v\n".replace(",", delimiter))
    assert t.names == ["a", "b"] and t.target == "y"
    np.testing.assert_array_equal(t.X, [[1, 2], [3, 45]])
    assert t.y.tolist() == ["u", "v"]


def test_quotes_blank_lines_bom_and_crlf(tmp_path):
    t = table(tmp_path, '\ufeff"a, in m", y\r\n\r\n"1", "x, ""z"""\r\n2, w\r\n')
    assert t.names == ["a, in m"]
    np.testing.assert_array_equal(t.X, [[1], [2]])
    assert t.y.tolist() == ['x, "z"', "w"]


def test_target_of_numbers_is_numeric(tmp_path):
    assert table(tmp_path, "a,y\n1,3\n2,4.5\n").y.tolist() == [3.0, 4.5]


def test_features_in_the_order_asked_for_and_dropped_columns(tmp_path):
    text = "name,a,b,y\nu,1,2,0\nv,3,4,1\n"
    t = table(tmp_path, text, features=["b", "a"])
    np.testing.assert_array_equal(t.X, [[2, 1], [4, 3]])
    assert list(t.skipped) == ["name"]
    np.testing.assert_array_equal(table(tmp_path, text, drop=["name"]).X, [[1, 2], [3, 4]])


def test_true_and_false_are_numbers_in_features_and_classes_in_the_target(tmp_path):
    t = table(tmp_path, "a,b,y\nTrue,1,True\nfalse,2,False\nTRUE, 3,True\n")
    np.testing.assert_array_equal(t.X, [[1, 1], [0, 2], [1, 3]])
    assert t.y.tolist() == ["True", "False", "True"]


def test_the_target_cannot_be_dropped(tmp_path):
    with pytest.raises(TableError, match="'y' cannot be the target and be dropped"):
        table(tmp_path, "a,b,y\n1,2,3\n", drop=["y"])


def test_a_column_cannot_be_dropped_and_be_a_feature(tmp_path):
    with pytest.raises(TableError, match="'a' cannot be a feature and be dropped"):
        table(tmp_path, "a,b,y\n1,2,3\n", drop=["a"], features=["a", "b"])


def test_a_pipe_is_read(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b"\n\na,y\n1,3\n2,4.5\n")
    os.close(writer)
    t = read_table(f"/dev/fd/{reader}", target="y")
    os.close(reader)
    np.testing.assert_array_equal(t.X, [[1], [2]])
    with pytest.raises(TableError, match="line 5"):  # blank lines are counted
        table(tmp_path, "\n\na,y\n1,3\nx,4.5\n")


def test_gzip(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress("\ufeffa,y\r\n1,u\r\n2,v\r\n".encode()))
    t = read_table(str(path), target="y")
    np.testing.assert_array_equal(t.X, [[1], [2]])
    assert t.y.tolist() == ["u", "v"]
    good = path.read_bytes()
    for content, message in (
        (good[:-9], "cut off"),
        (b"a,y\n1,2\n", "is not a gzip file"),
        (gzip.compress(b"a,y\n1,2\n3,caf\xe9\n"), "line 3: byte 0xe9 is not UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(TableError, match=message):
            read_table(str(path), target="y")


def test_many_rows_cross_the_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables_csv, "CHUNK", 7)
    rows = [f"{i},{i * i},c{i % 2}" for i in range(100)]
    t = table(tmp_path, "\n".join(["a,b,y", *rows]))
    np.testing.assert_array_equal(t.X[:, 1], np.arange(100.0) ** 2)
    assert t.y.tolist() == [f"c{i % 2}" for i in range(100)]
    rows[63] = "1,nothing,c0"
    with pytest.raises(TableError, match=r"line 65: column 'b': 'nothing'"):
        table(tmp_path, "\n".join(["a,b,y", *rows]))


def test_a_target_that_is_not_needed_is_not_read(tmp_path):
    t = table(tmp_path, "a,y\n1,\n2,nan\n", need_target=False)
    np.testing.assert_array_equal(t.X, [[1], [2]])
    assert t.y is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv' is empty"),
        ("\n \n", "is empty"),
        ("a,y\n", "no rows"),
        ("1,2\n3,4\n", r"line 1: no header: all cells are numbers \(1, 2\)"),
        (
            "a,b,y\n1,2,3\n4,5\n",
            r"line 3: 2 cells, but the header has 3 columns \(a, b, y; delimiter comma\)",
        ),
        ("a,b,y\n1,2,3\n\n4,5,6,7\n", "line 4: 4 cells"),
        ("a,b,a,y\n1,2,3,4\n", r"line 1: column name 'a' is there 2 times \(columns 1, 3\)"),
        (",a,y\n0,1,2\n5,1,2\n", "line 1: column 1 has no name"),
        ("a,,y\n0,1,2\n1,1,2\n", "line 1: column 2 has no name"),
        ("a,Y\n1,2\n", r"no target column: unknown column 'y'.*Known: Y, a"),
        ("5.1,3.5,setosa\n4,3,setosa\n", "is the header missing"),
        ("a,b,y\n1,2,3\n4,blue,6\n", r"line 3: column 'b': 'blue' is text"),
        ("a,b,y\n1,,3\n", r"line 2: column 'b': missing value \(the cell is empty\)"),
        ("a,b,y\n1,nan,3\n", r"line 2: column 'b': missing value \('nan'\)"),
        ("a,b,y\n1,2,3\n1,-inf,3\n", "line 3: column 'b': '-inf' is not a finite number"),
        ("a;b;y\n1;2,500;3\n", "line 2: column 'b': '2,500' may be 2500 or 2.500; write numbers without"),
        ("a;b;y\n1;-17,740.5;3\n", "has commas between thousands; write -17740.5"),
        ("a;b;y\n1;0,123;3\n", "'0,123' has a decimal comma"),
        (
            "a:y\n1:2\n",
            r"unknown column 'y'.*one column.*delimiters understood are comma, semicolon, tab and",
        ),
        ("a;b;y\n1;2,5;3\n", "line 2: column 'b': '2,5' has a decimal comma"),
        ("a,y\n1,\n", r"line 2: target column 'y': missing value \(the cell is empty\)"),
        ("a,y\n1,2\n1,1e999\n", "line 3: target column 'y': '1e999' is not a finite number"),
        ("a,y\n1,NaN\n", r"line 2: target column 'y': missing value \('NaN'\)"),
        ("a,y\n1,cat\n2,NA\n", r"line 3: target column 'y': missing value \('NA'\)"),
        ("a,y\n1,cat\n null ,dog\n", r"line 3: column 'a': missing value \('null'\)"),
        ("a,y\nTrue,1\nNA,1\n", r"line 3: column 'a': missing value \('NA'\)"),
        ("a,y\n2020-01-31,1\n", "line 2: column 'a': '2020-01-31' is a date where a number is expected"),
        ("a,y\nTrue,1\nmaybe,1\n", "line 3: column 'a': 'maybe' is text"),
        ("a,y\n1,2\n3\0,4\n", "line 3: holds a NUL byte"),
        (b"a,y\n1,2\n3,caf\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
        ("a,y\n1,2\n".encode("utf-16"), r"line 1: byte 0xff is not UTF-8 text \(it looks like UTF-16\)"),
        ('a,y\n1,"2\n3,4\n', r"line 3: .*closing quote"),
        ("y\n1\n2\n", "no feature columns besides 'y'"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(TableError, match=message) as caught:
        table(tmp_path, text)
    assert "t.csv" in str(caught.value)


@pytest.mark.parametrize("marker", ["?", "-", ".", "None", "n/a", "\\N", "#DIV/0!", "NA", "--", "nil", "NaT"])
@pytest.mark.usefixtures("reader")
def test_markers_of_missing_numbers(tmp_path, marker):
    with pytest.raises(TableError, match=r"line 3: column 'a': missing value \(.*fill it or remove the row"):
        table(tmp_path, f"a,y\n1,0\n{marker},1\n2,0\n")


def test_missing_target_suggests_the_nearest(tmp_path):
    with pytest.raises(TableError, match="Did you mean 'price'"):
        table(tmp_path, "a,price\n1,2\n", target="prise")
    with pytest.raises(TableError, match="--target; columns: a, price"):
        table(tmp_path, "a,price\n1,2\n", target=None)


def test_missing_features_are_named(tmp_path):
    with pytest.raises(TableError, match=r"lacks 1 of the feature columns: unknown column 'width'.*'with'"):
        table(tmp_path, "with,y\n1,2\n", features=["width"])
    with pytest.raises(TableError, match="lacks 2 of the feature columns: columns 'c', 'd'"):
        table(tmp_path, "a,y\n1,2\n", features=["a", "c", "d"])


def test_npz_by_usual_names_and_by_given_ones(tmp_path):
    x, y = np.arange(12.0).reshape(6, 2), np.array(list("abcabc"))
    np.savez(tmp_path / "a.npz", X=x, y=y)
    t = read_table(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(t.X, x)
    assert t.y.tolist() == y.tolist() and t.names == ["x0", "x1"] and not t.named
    np.savez(tmp_path / "b.npz", inputs=x, answers=y, feature_names=["u", "v"])
    t = read_table(str(tmp_path / "b.npz"), features=["inputs"], target="answers")
    assert t.names == ["u", "v"] and t.named and t.y.tolist() == y.tolist()
    with pytest.raises(TableError, match="arrays inputs, answers, feature_names; expected X and y"):
        read_table(str(tmp_path / "b.npz"))


def test_npz_with_images_and_test_rows(tmp_path):
    x = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
    np.savez(tmp_path / "m.npz", x_train=x, y_train=np.arange(5), x_test=x[:2], y_test=np.arange(2))
    t = read_table(str(tmp_path / "m.npz"))
    assert t.X.shape == (5, 4) and t.test.X.shape == (2, 4)
    assert t.test.y.tolist() == [0, 1]


def test_npy_with_target_column(tmp_path):
    a = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "a.npy", a)
    path = str(tmp_path / "a.npy")
    for target in ("1", "-2"):
        t = read_table(path, target=target)
        np.testing.assert_array_equal(t.X, a[:, [0, 2]])
        np.testing.assert_array_equal(t.y, a[:, 1])
    with pytest.raises(TableError, match=r"give --target, the number of the column to learn, 0 to 2 \(-1"):
        read_table(path)
    np.save(tmp_path / "o.npy", np.array([[1, "a"]], object), allow_pickle=True)
    with pytest.raises(TableError, match=r"o\.npy' holds Python objects, which are never loaded"):
        read_table(str(tmp_path / "o.npy"), target="0")
    for target in (None, "price", "3"):
        with pytest.raises(TableError, match="--target"):
            read_table(path, target=target)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((3, 2)), "y": np.zeros(4)}, r"y: shape \(4,\); expected \(3,\)"),
        ({"X": np.array([[1.0, np.nan]] * 3), "y": np.zeros(3)}, "X: nan in row 0, column 1"),
        ({"X": np.zeros((3, 2)), "y": np.array([0, np.inf, 0])}, "y: inf in row 1"),
        ({"X": np.zeros((3, 2), complex), "y": np.zeros(3)}, "X: dtype complex128"),
        ({"X": np.zeros((0, 2)), "y": np.zeros(0)}, "no rows"),
        ({"X": np.zeros(3), "y": np.zeros(3)}, r"X: shape \(3,\)"),
        ({"X": np.array([[1], [None]], object), "y": np.zeros(2)}, "Python objects, which are never loaded"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(TableError, match=message):
        read_table(str(tmp_path / "a.npz"))


def test_damaged_and_misnamed_numpy_files(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((30, 2)), y=np.zeros(30))
    data = (tmp_path / "a.npz").read_bytes()
    for name, content, message in (
        ("b.npz", data[:200], "damaged"),
        ("c.npz", b"", "is empty"),
        ("d.npz", b"a,b\n1,2\n", r"is not a \.npz file: .*ending \.csv"),
        ("e.npy", data, "ending .npz"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TableError, match=message):
            read_table(str(tmp_path / name), target="0")


def test_a_line_has_a_limit(tmp_path):
    for text in ("a,y\n1,2\n" + "1" * (1 << 26) + "\n", "a" * ((1 << 26) + 1)):
        with pytest.raises(TableError, match=r"t\.csv', line \d: has more than 67108864 characters"):
            table(tmp_path, text)


def test_numbers_more_precise_than_double(tmp_path):
    X = np.array([[1.5, 2], [3, 4]], np.longdouble)
    np.savez(tmp_path / "t.npz", X=X, y=X[:, 0])
    t = read_table(str(tmp_path / "t.npz"))
    assert t.X.dtype == t.y.dtype == np.float64
    np.testing.assert_array_equal(t.X, X)


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(float).max, reason="no long double here")
def test_numbers_beyond_double_are_refused(tmp_path):
    np.savez(tmp_path / "t.npz", X=np.array([["1"], ["1e400"]]).astype(np.longdouble), y=np.arange(2))
    with pytest.raises(TableError, match="inf in row 1"):
        read_table(str(tmp_path / "t.npz"))


@pytest.mark.parametrize("code", [0x110000, 0xD800, 0xFFFFFFFF])
def test_text_that_is_none_is_refused(tmp_path, code):
    y = np.array([ord("a"), code], np.uint32).view("U1")
    np.savez(tmp_path / "t.npz", X=np.ones((2, 1)), y=y)
    with pytest.raises(TableError, match=r"t\.npz', array 'y': it holds numbers that are not characters"):
        read_table(str(tmp_path / "t.npz"))
