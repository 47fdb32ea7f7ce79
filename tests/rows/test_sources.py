"""Sources of rows: what they read, what is wrong with a file, their parts."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.rows import ArrayRows, ParquetRows, RowSource, pieces

RNG = np.random.default_rng(0)
N, NAMES = 230, ["a", "b", "c"]
X = RNG.normal(size=(N, 3)).astype(np.float32)
LABEL = np.where(X[:, 0] > 0, "yes", "no")
W = RNG.uniform(0.1, 2, N)


def _table(**more: Any) -> dict[str, Any]:
    columns = {
        "a": X[:, 0],
        "b": X[:, 1],
        "c": X[:, 2],
        "y": (X[:, 0] > 0).astype(int),
        "label": LABEL,
        "w": W,
    }
    return {**columns, **more}


def _write(path: Path, rows_per_group: int = 40, **more: Any) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(_table(**more)), path, row_group_size=rows_per_group)
    return path


def _all(source: RowSource) -> list[Any]:
    """X, y and weights of all groups."""
    parts = [piece for group in range(len(source.groups)) for piece in pieces(source, group)]
    return [None if found[0] is None else np.concatenate(found) for found in zip(*parts, strict=True)]


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    _write(tmp_path / "2.parquet", 100, a=X[:, 0] + 1)
    (tmp_path / "1").mkdir()
    _write(tmp_path / "1" / "0.parquet")
    (tmp_path / "_metadata.parquet").write_text("not one of them")
    source = ParquetRows(tmp_path, NAMES, "y", "w")
    assert (source.n_rows, source.n_features, source.groups) == (2 * N, 3, [40] * 5 + [30, 100, 100, 30])
    read = _all(pickle.loads(pickle.dumps(source)))
    np.testing.assert_array_equal(read[0], np.concatenate([X, X + np.float32([1, 0, 0])]))
    np.testing.assert_array_equal(read[1], np.tile(X[:, 0] > 0, 2))
    np.testing.assert_array_equal(read[2], np.tile(W, 2))


def test_types_of_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    large = np.arange(N) + 2**60
    word = pa.array(LABEL).dictionary_encode()
    _write(tmp_path / "t.parquet", flag=X[:, 1] > 0, large=large, word=word, half=X[:, 2].astype(np.float16))
    source = ParquetRows(tmp_path, ["flag", "large", "half"], "word", classes=True)
    read = _all(source)
    assert source.classes == ["no", "yes"]
    np.testing.assert_array_equal(read[0], np.column_stack([X[:, 1] > 0, large, X[:, 2].astype(np.float16)]))
    np.testing.assert_array_equal(read[1], LABEL == "yes")
    several = ParquetRows(tmp_path, ["a"], ["b", "y"])
    np.testing.assert_array_equal(_all(several)[1], np.column_stack([X[:, 1], X[:, 0] > 0]))
    assert _all(ParquetRows(tmp_path, ["a"]))[1] is None
    numbers = ["a", "b", "c", "y", "flag", "large", "half"]
    with pytest.raises(TypeError, match="column 'label' holds string; features must be numbers"):
        ParquetRows(tmp_path, target="word")
    assert ParquetRows(tmp_path, numbers).features == numbers


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": ["a", "B"]}, ValueError, r"unknown column 'B'. Did you mean 'b'\?"),
        ({"features": "a"}, TypeError, "expected names of columns"),
        ({"features": ["a", "a"]}, ValueError, "named twice"),
        ({"features": NAMES, "target": "z"}, ValueError, "unknown column 'z'"),
        ({"features": NAMES, "target": "y", "weight": "v"}, ValueError, "unknown column 'v'"),
        ({"features": NAMES, "target": "y", "window": 0}, ValueError, "window=0; expected an integer >= 1"),
        ({"features": NAMES, "target": ["a", "y"], "classes": True}, ValueError, "for one target"),
        ({"features": NAMES, "target": "label", "classes": ["a", "a"]}, ValueError, "labels that differ"),
    ],
)
def test_wrong_columns(tmp_path: Path, arguments: dict[str, Any], error: type, message: str) -> None:
    path = _write(tmp_path / "t.parquet")
    with pytest.raises(error, match=message):
        ParquetRows(path, **arguments)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = _write(tmp_path / "good.parquet")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        ParquetRows(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no files \*.parquet"):
        ParquetRows(tmp_path / "folder")
    for content in (b"", b"a,b\n1,2\n", good.read_bytes()[:-9]):
        (tmp_path / "folder" / "bad.parquet").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad.parquet' cannot be read as a Parquet file"):
            ParquetRows(tmp_path / "folder", NAMES)
    (tmp_path / "folder" / "bad.parquet").unlink()
    _write(tmp_path / "folder" / "empty.parquet", **{name: v[:0] for name, v in _table().items()})
    with pytest.raises(ValueError, match="has no rows"):
        ParquetRows(tmp_path / "folder", NAMES)
    _write(tmp_path / "folder" / "other.parquet", b=LABEL)
    with pytest.raises(TypeError, match=r"other.parquet': column 'b' holds string"):
        ParquetRows(tmp_path / "folder", NAMES)


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        ({"b": [None, *X[1:, 1]]}, {}, ValueError, "row group 0: column 'b' has missing values"),
        ({"y": [*LABEL]}, {}, TypeError, "'y' holds string; expected numbers, or classes=True"),
        ({"y": LABEL}, {"classes": ["no", "maybe"]}, ValueError, "'y' holds 'yes', which is not one of"),
        (
            {"y": np.ones(N, "int8")},
            {"classes": [1, 300]},
            TypeError,
            "holds int8, to which the classes 1, 300",
        ),
        ({"w": LABEL}, {"weight": "w"}, TypeError, "column 'w' holds string; weights must be"),
    ],
)
def test_what_is_wrong_with_values(
    tmp_path: Path, change: dict[str, Any], arguments: dict[str, Any], error: type, message: str
) -> None:
    path = _write(tmp_path / "t.parquet", **change)
    with pytest.raises(error, match=message):
        _all(ParquetRows(path, NAMES, "y", **arguments))


def test_a_file_that_changes(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.parquet")
    source = ParquetRows(path, NAMES, "y")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"t.parquet' has changed since it was opened"):
        _all(source)
    path.unlink()
    with pytest.raises(ValueError, match="can no longer be read"):
        _all(source)


def test_shards_are_disjoint_and_complete(tmp_path: Path) -> None:
    source = ParquetRows(_write(tmp_path / "t.parquet"), NAMES, "y", window=77)
    for size in (1, 2, 4, 7):
        shards = [source.shard(rank, size) for rank in range(size)]
        assert [shard.window for shard in shards] == [77] * size
        found = np.concatenate([_all(shard)[0] for shard in shards if shard.n_rows])
        np.testing.assert_array_equal(np.sort(found, 0), np.sort(X, 0))
        assert all(shard.n_rows == sum(shard.groups) for shard in shards)
    assert [source.shard(rank, 7).n_rows for rank in (5, 6)] == [30, 0]
    with pytest.raises(ValueError, match="rank=2; expected an integer from 0 to 1"):
        source.shard(2, 2)


@pytest.mark.parametrize("per_group", [1, 3, 70_000])
def test_held_out_rows(per_group: int) -> None:
    n = 1000 if per_group < 70_000 else 150_000
    given = np.arange(n, dtype=np.float64).reshape(-1, 1)
    source = ArrayRows(given, given[:, 0], rows_per_group=per_group)
    train, held = source.split(0.1, seed=3)
    parts = [_all(part)[0][:, 0] for part in (train, held)]
    assert [len(part) for part in parts] == [train.n_rows, held.n_rows] == [n - n // 10, n // 10]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), given[:, 0])
    assert abs(parts[1].mean() / n - 0.5) < 0.02  # from everywhere
    np.testing.assert_array_equal(_all(source.split(0.1, seed=3)[1])[0], _all(held)[0])
    # a shard's are those of the whole
    np.testing.assert_array_equal(
        np.sort(np.concatenate([_all(held.shard(rank, 2))[0] for rank in range(2)]), 0), _all(held)[0]
    )
    with pytest.raises(ValueError, match="expected a fraction > 0 and < 1"):
        source.split(1.5, seed=3)


class _Wrong(RowSource):
    """A source whose `read` gives what it was told to."""

    def __init__(self, *given: Any) -> None:
        self.n_features, self.groups, self.given = 2, [3], given

    def read(self, group: int) -> Iterator[Any]:
        yield from self.given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "_Wrong, group 0 has 0 rows; it was said to have 3"),
        (((np.zeros((4, 2)), None, None),), "has 4 rows; it was said to have 3"),
        (((np.zeros((3, 1)), None, None),), r"X of shape \(3, 1\); expected \(n, 2\)"),
        ((np.zeros((3, 2)),), r"gave ndarray, not \(X, y, weights\)"),
    ],
)
def test_wrong_sources_are_told(given: tuple, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        list(pieces(_Wrong(*given), 0))


def test_only_what_reads_sources_takes_them(tmp_path: Path) -> None:
    source = ArrayRows(X, X[:, 0])
    trainer = gpumlp.Trainer(
        gpumlp.MLP([3, 1], device="numpy"), loss="squared_error", optimizer=gpumlp.SGD(0.1)
    )
    with pytest.raises(TypeError, match=r"X is a ArrayRows; expected an array: .* Trainer.fit"):
        trainer.step(source, X[:, 0])
    with pytest.raises(TypeError, match="X is a ArrayRows; expected an array"):
        gpumlp.fit_many([trainer], source, X[:, 0], epochs=1)
    with pytest.raises(ValueError, match=r"validation=.*ArrayRows.*expected a fraction"):
        gpumlp.fit_many([trainer], X, X[:, 0], epochs=1, validation=source)
    for more in ({"y": X[:, 0]}, {"sample_weight": W}):
        with pytest.raises(TypeError, match="targets and weights of its own"):
            trainer.fit(source, epochs=1, **more)
    for bad, message in (
        (ArrayRows(X[:, :2], X[:, 0]), "has 2 features"),
        (ArrayRows(X[:0], X[:0, 0]), "has no rows"),
        (ArrayRows(X), "there are no targets"),
        (ArrayRows(X, X), "the network has 1 outputs"),
        (ArrayRows(X, X[:, 0], -W), "weights must be >= 0"),
        (ArrayRows(X, X[:, 0], 0 * W), "the weights of all rows are 0"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer.evaluate(bad)
    assert trainer.epoch == trainer.optimizer.t == 0


def test_arrays_in_files_are_not_copied(tmp_path: Path) -> None:
    """Of 64 MB on disk a few are in memory at a time, where each array is read as it is, and as a source."""
    import tracemalloc

    n, features = 40_000, 200
    np.save(tmp_path / "X.npy", RNG.normal(size=(n, features)))
    np.save(tmp_path / "y.npy", RNG.normal(size=n))
    given, y = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "Xy")
    for rows, window in (((given, y), None), ((ArrayRows(given, y, window=2000),), 2000)):
        model = gpumlp.MLP([features, 1], device="cpu")
        trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.SGD(0.01), batch_size=200)
        tracemalloc.start()
        trainer.fit(*rows, epochs=1, validation=None if window else 0.1)
        trainer.evaluate(*rows)
        model.predict(rows[0])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 24 << 20, (window, peak)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the size of mapped files")
def test_mapped_files_are_given_back(tmp_path: Path) -> None:
    """Reading a file of 64 MB as a source leaves none of it mapped in memory; what was written stays."""

    def mapped() -> int:
        return int(Path("/proc/self/status").read_text().split("RssFile:")[1].split()[0]) << 10

    given = RNG.normal(size=(40_000, 200))
    np.save(tmp_path / "X.npy", given)
    for mode, limit in (("r", 16 << 20), ("c", 1 << 40)):
        X = np.load(tmp_path / "X.npy", mmap_mode=mode)
        if mode == "c":
            X[0, 0] = given[0, 0] = 7.0
        before, most = mapped(), 0
        source = ArrayRows(X[:, :150])
        for group in range(len(source.groups)):
            assert np.isfinite([part.sum() for part, _, _ in pieces(source, group)]).all()
            most = max(most, mapped() - before)
        assert most < limit
        np.testing.assert_array_equal(X[::997], given[::997])
