"""Training on a cluster: the bits of one process, wherever the rows are; and what the estimators leave."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import clusters
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import accuracy_score, r2_score

import gpumlp
from gpumlp.dask import DaskMLPClassifier, DaskMLPRegressor

X, Y, W = clusters.rows()
NAMES = np.array(["lion", "tiger", "puma"])[Y]
COLUMNS = list("abcde")
FRAME = pd.DataFrame(X, columns=COLUMNS, index=np.arange(len(X)) + 100)
CHUNKS = (100, 0, 3, 200, 100)


def array(x: np.ndarray, chunks: Any = CHUNKS) -> Any:
    return da.from_array(x, chunks=(chunks, *x.shape[1:]))


def frame(x: Any) -> Any:
    return dd.from_pandas(x, npartitions=5)


@pytest.fixture(scope="module")
def fitted(client: Any) -> Any:
    return DaskMLPClassifier(client, **clusters.settings()).fit(array(X), array(NAMES))


@pytest.mark.parametrize("kind", ["arrays", "frames", "one worker", "another order"])
def test_the_bits_of_one_process(client: Any, kind: str) -> None:
    number = np.unique(NAMES, return_inverse=True)[1]
    expected = clusters.alone(X, number, W, 3, "softmax_cross_entropy", epochs=3)
    given: Any = [array(X), array(NAMES, (203, 200)), array(W)]
    if kind == "frames":
        given = [frame(FRAME), frame(pd.Series(NAMES, FRAME.index)), frame(pd.Series(W, FRAME.index))]
    elif kind != "arrays":
        where = sorted(client.nthreads())
        given = [each.rechunk({0: CHUNKS}) for each in given]
        if kind == "one worker":
            given = client.persist(given, workers=where[:1])
        else:  # the first partition on the second worker
            parts = [
                [client.submit(np.array, part, workers=where[1 - k % 2]) for k, part in enumerate(cut)]
                for cut in (np.split(array, np.cumsum(CHUNKS)[:-1]) for array in (X, NAMES, W))
            ]
            given = [
                da.concatenate(
                    [
                        da.from_delayed(part, (rows, *x.shape[1:]), x.dtype)
                        for part, rows in zip(each, CHUNKS, strict=True)
                    ]
                )
                for each, x in zip(parts, (X, NAMES, W), strict=True)
            ]
    clf = DaskMLPClassifier(client, **clusters.settings()).fit(*given)
    assert clusters.result(clf) == expected
    assert clf.classes_.tolist() == ["lion", "puma", "tiger"]


def test_partitions_stay_where_they_are(client: Any) -> None:
    rows, labels = client.persist([array(X), array(NAMES)])
    client.gather(client.futures_of([rows, labels]))
    before = client.who_has(client.futures_of([rows, labels]))
    DaskMLPClassifier(client, **clusters.settings(max_iter=1)).fit(rows, labels)
    after = client.who_has(client.futures_of([rows, labels]))
    assert all(set(before[key]) <= set(after[key]) for key in before)
    assert len({holder for holders in before.values() for holder in holders}) == 2


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression(client: Any, outputs: int) -> None:
    y = (X[:, 0] + 1) if outputs == 1 else X[:, :2] * 2
    options = clusters.settings(early_stopping=True, validation_fraction=0.25, tol=0)
    reg = DaskMLPRegressor(client, **options).fit(array(X), array(y))
    stop = gpumlp.EarlyStopping("val_r2", 10)
    fit = {"epochs": 3, "validation": 0.25, "early_stopping": stop}
    assert clusters.result(reg) == clusters.alone(X, y, None, outputs, "squared_error", **fit)
    answer = reg.predict(array(X))
    assert answer.shape == y.shape and answer.chunks[0] == CHUNKS and answer.dtype == np.float32
    assert np.array_equal(answer.compute(), reg.model_.predict(X))
    assert reg.score(array(X), array(y)) == pytest.approx(r2_score(y, answer.compute()))
    table = reg.predict(frame(FRAME))
    assert table.compute().index.equals(FRAME.index) and table.ndim == y.ndim


def test_double_precision_and_two_classes(client: Any) -> None:
    wide, two = X.astype(np.float64), Y > 0
    clf = DaskMLPClassifier(client, **clusters.settings()).fit(array(wide), array(two))
    assert clusters.result(clf) == clusters.alone(wide, two, None, 1, "binary_cross_entropy", epochs=3)
    assert clf.classes_.tolist() == [False, True] and clf.predict(array(wide)).dtype == bool
    assert clf.predict_proba(array(wide)).compute().shape == (len(X), 2)


def test_answers_for_arrays(fitted: Any) -> None:
    rows = array(X)
    labels, p = fitted.predict(rows), fitted.predict_proba(rows)
    assert labels.chunks == (CHUNKS,) and labels.dtype == fitted.classes_.dtype
    assert p.chunks == (CHUNKS, (3,)) and p.dtype == np.float32
    assert np.array_equal(p.compute(), fitted.model_.predict_proba(X))
    assert np.array_equal(labels.compute(), fitted.classes_[p.compute().argmax(axis=1)])
    assert fitted.predict(rows.rechunk((50, 2))).compute().tolist() == labels.compute().tolist()
    assert fitted.score(rows, array(NAMES)) == accuracy_score(NAMES, labels.compute())
    assert fitted.predict(X[:4]).tolist() == labels[:4].compute().tolist()  # rows in memory


@pytest.mark.parametrize("kind", ["text", "categories", "numbers"])
def test_answers_for_frames(client: Any, kind: str) -> None:
    y = pd.Series(NAMES if kind != "numbers" else Y * 10, FRAME.index)
    y = y.astype("category") if kind == "categories" else y
    clf = DaskMLPClassifier(client, **clusters.settings(max_iter=1)).fit(frame(FRAME), frame(y))
    labels, p = clf.predict(frame(FRAME)), clf.predict_proba(frame(FRAME))
    found, table = labels.compute(), p.compute()
    assert labels.dtype == found.dtype and found.index.equals(FRAME.index)
    assert list(p.columns) == list(table.columns) == clf.classes_.tolist() == sorted(set(y))
    assert p.dtypes.tolist() == table.dtypes.tolist() == [np.float32] * 3
    assert found.tolist() == table.columns[table.to_numpy().argmax(axis=1)].tolist()
    assert clf.feature_names_in_.tolist() == COLUMNS
    with pytest.raises(ValueError, match="columns"):
        clf.predict(frame(FRAME[COLUMNS[::-1]]))


def test_copies_and_files(fitted: Any, client: Any, tmp_path: Path) -> None:
    copy = clone(fitted)
    assert copy.client is client and not hasattr(copy, "model_")
    assert copy.set_params(max_iter=2).get_params()["max_iter"] == 2
    other = pickle.loads(pickle.dumps(fitted))
    assert other.client is None
    assert other.predict(X).tolist() == fitted.predict(array(X)).compute().tolist()
    fitted.model_.save(tmp_path / "model.npz")
    loaded = gpumlp.load(tmp_path / "model.npz", device="cpu")
    assert np.array_equal(loaded.predict_proba(X), fitted.model_.predict_proba(X))
    assert loaded.extra["classes"] == fitted.classes_.tolist()
