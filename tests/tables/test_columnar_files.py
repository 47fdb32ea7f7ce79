"""Parquet, Arrow and Feather files, which need pyarrow."""

from __future__ import annotations

import datetime
import gzip

import numpy as np
import pytest

from gpumlp.tables import TableError, read_frame, read_table

pa = pytest.importorskip("pyarrow")
from pyarrow import feather, parquet  # noqa: E402


def table(n: int = 5):
    return pa.table(
        {
            "whole": pa.array(range(n), pa.int16()),
            "long": pa.array([2**63 - 1, None, *range(n - 2)], pa.int64()),
            "single": pa.array(np.arange(n) / 4, pa.float32()),
            "price": pa.array([None, *(str(k) + ".25" for k in range(n - 1))]).cast(pa.decimal128(10, 2)),
            "yes": pa.array([True, None, *[False] * (n - 2)]),
            "text": pa.array(["a", None, *["b"] * (n - 2)]),
            "kind": pa.array(["x", None, *["y"] * (n - 2)]).dictionary_encode(),
            "day": pa.array([datetime.date(2020, 1, 1), None, *[datetime.date(1600, 5, 6)] * (n - 2)]),
            "nothing": pa.nulls(n),
        }
    )


def write(path, table) -> str:
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".feather":
        feather.write_feather(table, path)
    elif path.suffix == ".arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    return str(path)


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.arrow"])
def test_types_come_as_they_are(tmp_path, name):
    frame = read_frame(write(tmp_path / name, table()))
    kinds = {column.name: column.kind for column in frame.columns}
    assert kinds == {
        "whole": "number", "long": "number", "single": "number", "price": "number", "yes": "boolean",
        "text": "text", "kind": "category", "day": "date", "nothing": "number",
    }  # fmt: skip
    assert frame["long"].values.tolist() == [2**63 - 1, 0, 0, 1, 2]
    assert frame["single"].values.dtype == np.float32
    np.testing.assert_array_equal(frame["price"].floats(), [np.nan, 0.25, 1.25, 2.25, 3.25])
    assert frame["day"].values[[0, 2]].astype(str).tolist() == [
        "2020-01-01T00:00:00.000000",
        "1600-05-06T00:00:00.000000",
    ]
    for column in ("long", "yes", "text", "kind", "day"):
        assert frame[column].missing.tolist() == [False, True, False, False, False], column
    assert frame["kind"].texts().tolist() == ["x", None, "y", "y", "y"]


def test_many_row_groups(tmp_path):
    values = np.arange(300_000)
    parquet.write_table(
        pa.table({"a": values, "t": np.char.mod("%d", values % 7)}),
        tmp_path / "t.parquet",
        row_group_size=1000,
    )
    frame = read_frame(str(tmp_path / "t.parquet"), columns=["t", "a"])
    np.testing.assert_array_equal(frame["a"].values, values)
    assert frame["t"].texts()[[0, 6, 299_999]].tolist() == ["0", "6", str(299_999 % 7)]


def test_files_are_known_by_their_content(tmp_path):
    write(tmp_path / "t.parquet", table())
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.csv").write_bytes(data)
    assert read_frame(str(tmp_path / "t.csv")).n_rows == 5
    (tmp_path / "t.parquet.gz").write_bytes(gzip.compress(data))
    assert read_frame(str(tmp_path / "t.parquet.gz")).n_rows == 5
    (tmp_path / "cut.parquet").write_bytes(data[:200])
    with pytest.raises(TableError, match=r"cut\.parquet' is a damaged Parquet file"):
        read_frame(str(tmp_path / "cut.parquet"))


def test_every_flipped_byte_is_a_frame_or_one_sentence(tmp_path):
    path = write(tmp_path / "t.parquet", table())
    data, rng = bytearray((tmp_path / "t.parquet").read_bytes()), np.random.default_rng(0)
    for at in rng.integers(4, len(data), 150).tolist():
        damaged = bytearray(data)
        damaged[at] ^= int(rng.integers(1, 256))
        (tmp_path / "t.parquet").write_bytes(damaged)
        try:
            read_frame(path)
        except TableError as error:
            assert path in str(error) and "\n" not in str(error), at


def test_columns_that_are_none(tmp_path):
    path = write(tmp_path / "t.parquet", pa.table({"a": [1], "b": [[1, 2]]}))
    with pytest.raises(TableError, match=r"t\.parquet'.*column 'b' holds list<.*must hold numbers, text"):
        read_frame(path)
    assert read_frame(path, drop=["b"]).names == ["a"]


def test_the_index_of_pandas_is_left_out(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1.5, 2.5], "y": [0, 1]}, index=["p", "q"])
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_frame(str(tmp_path / "t.parquet")).names == ["a", "y"]
    t = read_table(str(tmp_path / "t.parquet"), target="y")
    assert t.names == ["a"] and t.y.tolist() == [0, 1]


def test_parquet_and_csv_together(tmp_path):
    write(tmp_path / "1.parquet", pa.table({"a": [1, 2], "b": ["x", "y"], "c": [1, 2]}))
    (tmp_path / "2.csv").write_text("c,b,a\nz,7,0.5\n")
    frame = read_frame(str(tmp_path))
    assert frame["a"].values.tolist() == [1.0, 2.0, 0.5]
    assert frame["b"].texts().tolist() == ["x", "y", "7"]
    assert frame["c"].texts().tolist() == ["1", "2", "z"]


def test_a_matrix_of_a_parquet_file(tmp_path):
    path = write(tmp_path / "t.parquet", pa.table({"a": [1, 2], "b": [True, False], "y": ["u", "v"]}))
    t = read_table(path, target="y")
    np.testing.assert_array_equal(t.X, [[1, 1], [2, 0]])
    assert t.y.tolist() == ["u", "v"]
    for a, message in (
        ([1.0, None], "missing value"),
        ([1.0, float("inf")], "not a finite number"),
        (["1", "x"], "'x' is text"),
    ):
        path = write(tmp_path / "t.parquet", pa.table({"a": a, "y": [0, 1]}))
        with pytest.raises(TableError, match=rf"row 1 \(counted from 0\): column 'a': .*{message}"):
            read_table(path, target="y")


def test_without_pyarrow_it_is_asked_for(tmp_path, no_pyarrow):
    (tmp_path / "t.parquet").write_bytes(b"PAR1....")
    with pytest.raises(
        ModuleNotFoundError, match=r"Parquet file, which needs pyarrow: pip install 'gpumlp\[tables\]'"
    ):
        read_frame(str(tmp_path / "t.parquet"))
    (tmp_path / "t.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd....")
    with pytest.raises(ModuleNotFoundError, match="zstd, which needs pyarrow"):
        read_frame(str(tmp_path / "t.csv.zst"))


def test_zstd(tmp_path):
    with pa.CompressedOutputStream(str(tmp_path / "t.csv.zst"), "zstd") as file:
        file.write(b"a,b\n1,x\n")
    assert read_frame(str(tmp_path / "t.csv.zst"))["b"].texts().tolist() == ["x"]
