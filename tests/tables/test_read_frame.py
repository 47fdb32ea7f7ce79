"""Text files as typed columns, by both readers."""

from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pytest

from gpumlp.tables import Layout, TableError, read_frame

pytestmark = pytest.mark.usefixtures("reader")


@pytest.fixture
def read(tmp_path):
    def call(text: str | bytes, name: str = "t.csv", **options):
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return read_frame(str(tmp_path / name), **options)

    return call


def column(read, cells: list[str], mode: str = "", **options):
    text = "\n".join(["a,z", *(f"{cell},0" for cell in cells)])
    return read(text, modes={"a": mode}, **options)["a"]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-2", "30"], "number", [1, -2, 30]),
        (["1", "2.5", "3e2"], "number", [1.0, 2.5, 300.0]),
        (["9007199254740993", "1"], "number", [9007199254740993, 1]),
        (["\u00a01", " 2 "], "number", [1, 2]),
        (["true", "False", "TRUE"], "boolean", [True, False, True]),
        (["true", "1", "0"], "number", [1, 1, 0]),
        (["10_1", "2"], "text", ["10_1", "2"]),
        (["blue", " red ", "blue"], "text", ["blue", "red", "blue"]),
        (["1", "2", "x"], "text", ["1", "2", "x"]),
        (["2020-01-31", "1600-05-06"], "date", ["2020-01-31", "1600-05-06"]),
        (["2020-01-31 12:30", "2020-01-31T12:30:05"], "date", ["2020-01-31T12:30", "2020-01-31T12:30:05"]),
        (["2020-01-31T12:30:00+02:00", "2020-01-31T10:30:00Z"], "date", ["2020-01-31T10:30"] * 2),
        (["12:30", "00:00:01"], "date", ["1970-01-01T12:30", "1970-01-01T00:00:01"]),
        (["2020-02-30", "2020-02-01"], "text", ["2020-02-30", "2020-02-01"]),
    ],
)  # fmt: skip
def test_what_cells_look_like(read, cells, kind, values):
    found = column(read, cells)
    assert found.kind == kind and found.missing is None
    if kind == "text":
        assert found.texts().tolist() == values
    elif kind == "date":
        np.testing.assert_array_equal(found.values, np.array(values, "datetime64[us]"))
    else:
        assert found.values.tolist() == values
        assert found.values.dtype.kind == np.array(values).dtype.kind


MARKERS = [
    "",
    "NA",
    "n/a",
    "NaN",
    "nan",
    "null",
    "NULL",
    "None",
    "none",
    "?",
    "<NA>",
    "\\N",
    "#DIV/0!",
    "#N/A",
    "NaT",
]


@pytest.mark.parametrize("marker", [*MARKERS, "-", "--", ".", "..", "*", "nil", "missing", " NA "])
@pytest.mark.parametrize(("kind", "cell"), [("number", "1.5"), ("date", "2020-01-31"), ("boolean", "true")])
def test_missing_values(read, marker, kind, cell):
    found = column(read, [cell, marker, cell])
    assert found.kind == kind
    assert found.missing.tolist() == [False, True, False]


@pytest.mark.parametrize("marker", MARKERS)
def test_missing_text(read, marker):
    found = column(read, ["blue", marker, "red"])
    assert found.texts().tolist() == ["blue", None, "red"] and found.values.tolist() == [0, -1, 1]


def test_plus_and_minus_are_text_beside_text(read):
    assert column(read, ["+", "-", "+", "."]).texts().tolist() == ["+", "-", "+", "."]


def test_missing_integers_stay_integers(read):
    found = column(read, ["9007199254740993", "NA", "2"])
    assert found.values.tolist() == [9007199254740993, 0, 2] and found.missing.tolist() == [
        False,
        True,
        False,
    ]
    np.testing.assert_array_equal(found.floats(), [9007199254740992.0, np.nan, 2.0])


def test_a_column_without_a_value(read):
    found = column(read, ["", "NA", "?"])
    assert found.kind == "number" and found.missing.all() and np.isnan(found.values).all()


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "2", "-3"], [1, 2, -3]),
        (["1", "1.0", "0.25"], [1.0, 1.0, 0.25]),
        (["1e-05", "2.5E+10", "1.5E5"], [1e-05, 2.5e10, 1.5e5]),
        (["001", "002"], None),
        (["10_1", "10_2"], None),
        (["1e5", "12E4"], None),
        (["763158003000004101", "763158003000004102"], None),
        (["9204519330086123", "1"], None),
        (["1.1", "1.10"], None),
        (["0x1F", "0x20"], None),
        (["+1", "-1"], None),
        (["-", "+"], None),
        (["none", "left"], None),
        (["True", "TRUE"], None),
    ],
)
def test_labels_stay_as_they_are_written(read, cells, values):
    found = column(read, cells, "label")
    if values is None:
        assert found.kind == "text" and found.missing is None and found.texts().tolist() == cells
    else:
        assert found.kind == "number" and found.values.tolist() == values


def test_many_labels_of_two_decimals_are_numbers(read):
    cells = [f"{n / 100:.2f}" for n in range(1500)]
    found = column(read, cells, "label")
    assert found.kind == "number" and found.values[150] == 1.5


def test_raw_cells_are_kept_to_the_letter(read):
    cells = ["007", "NA", "1.10", "", "x"]
    assert column(read, cells, "raw").texts().tolist() == cells


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_bom_quotes_blank_lines_and_line_ends(read, end):
    text = '\ufeff\n"a ""1""",b\n\n"two\nlines",1\n"x, y",2\n'.replace("\n", end)
    frame = read(text)
    assert frame.names == ['a "1"', "b"]
    assert frame.columns[0].texts().tolist() == [f"two{end}lines", "x, y"]
    assert frame["b"].values.tolist() == [1, 2]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(read, delimiter):
    assert read("a,b\n1,x\n".replace(",", delimiter)).names == ["a", "b"]


@pytest.mark.parametrize("text", ["a, b;c\n1;x\n", "c;a, b\n1;x,y\n", "a, b, c\td\n1\t2\n"])
def test_the_delimiter_fits_the_rows(read, text):
    """A name, or a cell, may hold another one."""
    assert len(read(text).names) == 2


def test_delimiter_and_decimal_are_given(read):
    frame = read("a:b:c\n1,5:-2,25e1:x,y\n", layout=Layout(delimiter=":", decimal=","))
    assert frame["a"].values.tolist() == [1.5] and frame["b"].values.tolist() == [-22.5]
    assert frame["c"].texts().tolist() == ["x,y"]
    assert column(read, ["1.5"], layout=Layout(delimiter=",", decimal=",")).kind == "text"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8"])
def test_encodings(read, encoding):
    frame = read("größe,b\n1,é\n".encode(encoding), layout=Layout(encoding))
    assert frame.names == ["größe", "b"] and frame["b"].texts().tolist() == ["é"]


def test_wrong_encodings_are_told(read):
    with pytest.raises(TableError, match=r"line 2: byte 0xe9 is not UTF-8.*--encoding cp1252"):
        read("a,b\n1,é\n".encode("latin-1"))
    with pytest.raises(TableError, match="--encoding utf-16"):
        read("a,b\n1,é\n".encode("utf-16"))
    with pytest.raises(TableError, match="unknown encoding 'utf-9'"):
        read("a,b\n1,2\n", layout=Layout("utf-9"))
    with pytest.raises(TableError, match="is not utf-16 text"):
        read(b"a,b\n1,2\n1", layout=Layout("utf-16"))


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_packed_files(read, ending, pack):
    data = pack.compress(b"a,b\n1,x\n" + b"2,y\n" * 1000)
    assert read(data, f"t.csv{ending}").n_rows == 1001
    assert read(data, "t.csv").n_rows == 1001  # known by its content
    with pytest.raises(TableError, match="damaged or cut off"):
        read(data[: len(data) // 2], f"t.csv{ending}")
    with pytest.raises(TableError, match=r"is not a .* file, or is damaged"):
        read(b"a,b\n1,2\n", f"t.csv{ending}")


def test_several_files_and_folders(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "2.csv").write_text("b,a\nx,3\n")
    (folder / "1.csv.gz").write_bytes(gzip.compress(b"a,b\n1,y\n2,5\n"))
    (folder / "README.md").write_text("about")
    (folder / "_SUCCESS").write_text("")
    frame = read_frame(str(folder))
    assert frame["a"].values.tolist() == [1, 2, 3]
    assert frame["b"].texts().tolist() == ["y", "5", "x"]
    (tmp_path / "numbers.csv").write_text("a,b\n7,8\n")
    both = read_frame([str(tmp_path / "numbers.csv"), str(folder)])
    assert both["b"].texts().tolist() == ["8", "y", "5", "x"]  # text in one file, so text in all
    (tmp_path / "other.csv").write_text("a,c\n7,8\n")
    with pytest.raises(TableError, match=r"other columns than.*lacks b"):
        read_frame([str(folder), str(tmp_path / "other.csv")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(TableError, match="directory without data files"):
        read_frame(str(tmp_path / "empty"))


def test_an_index_without_a_name_is_left_out(read):
    assert read(",a\n0,5\n1,6\n2,9\n").names == ["a"]
    assert read(",a\nx,5\ny,6\n").names == ["Unnamed: 0", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "a header and no rows"),
        ("a,b\n1,2\n3\n", "line 3: 1 cell, but the header has 2 columns"),
        ('a,b\n1,2\n3,"4\n', "line 3: .*closing quote"),
        ('a,b\n1,2\n3,"4"x\n', "line 3: .*closing quote"),
        ("a,b\n1,2\n3,\0\n", "line 3: holds a NUL byte"),
        ("a,b,a\n1,2,3\n", r"'a' is there 2 times \(columns 1, 3\)"),
        ("a,,b\n1,2,3\n", "column 2 has no name"),
        ("1,2\n3,4\n", "no header"),
        ("", "is empty"),
    ],
)
def test_faults_name_their_place(read, text, message):
    with pytest.raises(TableError, match=message) as caught:
        read(text)
    assert "t.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r"is an Excel workbook; save the sheet as CSV.*read_excel"),
        (b'{"a": 1}\n{"a": 2}\n', "holds JSON lines.*read_json"),
        (b'[{"a": 1}]', "holds JSON.*read_json"),
        (b"SQLite format 3\0", "SQLite database"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 file.*read_hdf"),
        (b"\x80\x04\x95\x10", "pickle, which is never loaded"),
        (b"<!DOCTYPE html><html>", "page of HTML"),
        (b"\x93NUMPY\x01\0", "ending .npy"),
        (b"PK\x03\x04", "damaged zip archive"),
    ],
)
def test_other_files_are_named_for_what_they_are(read, start, message):
    with pytest.raises(TableError, match=message):
        read(start, "t.csv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["xl/workbook.xml", "[Content_Types].xml"], "is an Excel workbook; save the sheet as CSV"),
        (["content.xml"], "OpenDocument"),
        (["X.npy", "y.npy"], "archive of arrays; give it the ending .npz"),
        (["a.csv", "b.csv"], r"is a zip archive of a\.csv, b\.csv; unpack it"),
    ],
)
def test_zip_archives_are_named_for_what_they_hold(tmp_path, names, message):
    import zipfile

    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    with pytest.raises(TableError, match=message):
        read_frame(str(tmp_path / "t.xlsx"))
