"""Ensembles: means, spread, the greedy choice against one written here, files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from tolerances import close

import gpumlp

OUTPUTS = {"softmax": 3, "sigmoid": 1, "identity": 2, "exp": 1}


def models(device: str, output: str, n: int = 4, dtype: str = "float64") -> list[gpumlp.MLP]:
    made = [
        gpumlp.MLP([5, 3 + k, OUTPUTS[output]], "tanh", seed=k, dtype=dtype, device=device) for k in range(n)
    ]
    for model in made:
        model.output = output
    return made


def rows(output: str, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5))
    if output == "softmax":
        return X, rng.integers(0, 3, n)
    if output == "sigmoid":
        return X, rng.integers(0, 2, n)
    return X, np.abs(rng.normal(size=(n, OUTPUTS[output])))


def answers(model: gpumlp.MLP, X: np.ndarray) -> np.ndarray:
    return model.predict_proba(X) if model.output in ("softmax", "sigmoid") else model.predict(X)


@pytest.mark.parametrize("output", OUTPUTS)
def test_mean_and_spread(device: str, output: str) -> None:
    X, _ = rows(output)
    a, b, c, _ = models(device, output)
    ensemble = gpumlp.Ensemble([a, b, a, c])
    each = np.stack([answers(m, X) for m in (a, b, a, c)])
    close(ensemble.spread(X), each.std(axis=0), "figures")
    assert ensemble.output == output and len(ensemble) == 4
    assert ensemble.n_params == a.n_params + b.n_params + c.n_params
    if output in ("softmax", "sigmoid"):
        close(ensemble.predict_proba(X), each.mean(axis=0), "figures")
        assert np.array_equal(ensemble.predict(X), each.mean(axis=0).argmax(axis=1))
    else:
        close(ensemble.predict(X), each.mean(axis=0), "figures")
        with pytest.raises(TypeError, match="predict_proba needs a classifier"):
            ensemble.predict_proba(X)


def test_several_sigmoids(device: str) -> None:
    pair = [gpumlp.MLP([5, 4], seed=k, device=device) for k in range(2)]
    for model in pair:
        model.output = "sigmoid"
    X, _ = rows("sigmoid")
    mean = (pair[0].predict_proba(X) + pair[1].predict_proba(X)) / 2
    assert np.array_equal(gpumlp.Ensemble(pair).predict(X), (mean > 0.5).astype(int))
    y = (mean > 0.4).astype(float)
    assert len(gpumlp.greedy_ensemble(pair, X, y, 3)) == 3


def test_types(device: str) -> None:
    """The widest of the members' types."""
    X, _ = rows("identity")
    narrow, wide = models(device, "identity", dtype="float32"), models(device, "identity")
    assert gpumlp.Ensemble(narrow).predict(X).dtype == np.float32
    assert gpumlp.Ensemble([narrow[0], wide[1]]).predict(X).dtype == np.float64


def oracle(each: list[np.ndarray], y: np.ndarray, size: int, metric: str) -> list[int]:
    """Numbers of the models that forward selection takes; `each` are probabilities (n, classes) or values."""
    chosen: list[int] = []
    for _ in range(size):
        scores = []
        for k in range(len(each)):
            mean = np.mean([each[j] for j in [*chosen, k]], axis=0)
            if metric == "rmse":
                scores.append(np.sqrt(np.mean((mean - y) ** 2)))
            elif metric == "accuracy":
                scores.append(np.mean(mean.argmax(axis=1) != y))
            else:
                scores.append(np.mean([-np.log(p[label]) for p, label in zip(mean, y, strict=True)]))
        chosen.append(int(np.flatnonzero(np.isclose(scores, min(scores), rtol=1e-12, atol=0))[0]))
    return chosen


@pytest.mark.parametrize(
    ("output", "metric"),
    [
        ("softmax", None),
        ("softmax", "accuracy"),
        ("sigmoid", "log_loss"),
        ("sigmoid", "accuracy"),
        ("identity", None),
        ("exp", "rmse"),
    ],
)
@pytest.mark.parametrize("size", [1, 7])
def test_greedy_choice(device: str, output: str, metric: str | None, size: int) -> None:
    X, y = rows(output)
    made = models(device, output, 6)
    ensemble = gpumlp.greedy_ensemble(made, X, y, size, metric=metric)
    each = [answers(m, X).reshape(len(X), -1) for m in made]
    kind = metric or ("log_loss" if output == "softmax" else "rmse")
    expected = oracle(each, y, size, kind)
    assert [made.index(m) for m in ensemble.models] == expected


def test_ties_go_to_the_first(device: str) -> None:
    X, y = rows("softmax")
    made = models(device, "softmax", 1) + models(device, "softmax", 1)
    ensemble = gpumlp.greedy_ensemble(made, X, y, 3)
    assert all(model is made[0] for model in ensemble.models)


def test_diverged_models_are_passed_over(device: str) -> None:
    X, y = rows("softmax")
    made = models(device, "softmax", 3)
    made[0].weights[0] = np.full((5, 3), np.nan)
    ensemble = gpumlp.greedy_ensemble(made, X, y, 4)
    assert made[0] not in ensemble.models
    with pytest.raises(ValueError, match="none of the models has finite outputs"):
        gpumlp.greedy_ensemble(made[:1], X, y, 4)


@pytest.mark.parametrize("output", OUTPUTS)
def test_one_file(device: str, output: str, tmp_path: Path) -> None:
    X, _ = rows(output)
    a, b, c, _ = models(device, output)
    a.extra = {"name": "a"}
    ensemble = gpumlp.Ensemble([b, a, b, c])
    ensemble.extra = {"classes": ["x", "ü"]}
    ensemble.save(tmp_path / "e.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["e.npz"]
    read = gpumlp.load(tmp_path / "e.npz", device)
    assert isinstance(read, gpumlp.Ensemble) and read.extra == ensemble.extra and repr(read) == repr(ensemble)
    assert read.models[0] is read.models[2] and read.models[1].extra == {"name": "a"}
    assert np.array_equal(read.predict(X), ensemble.predict(X))
    again = pickle.loads(pickle.dumps(ensemble))
    assert np.array_equal(again.predict(X), ensemble.predict(X)) and len(again.members()) == 3


def test_where_an_ensemble_does_not_belong(device: str, tmp_path: Path) -> None:
    gpumlp.Ensemble(models(device, "exp")).save(tmp_path / "e.npz")
    with pytest.raises(gpumlp.ModelFileError, match="an ensemble of 4 networks; read it"):
        gpumlp.Trainer.load(tmp_path / "e.npz", device)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": []}, "'members' is"),
        ({"members": [3]}, "'members' is"),
        ({"order": [0, 0]}, "'order' is"),
        ({"order": [0, 1, 2]}, "'order' is"),
        ({"order": [0, True]}, "'order' is"),
        ({"order": None}, "'order' is"),
        ({"extra": 3}, "'extra' is 3"),
        ({"format": "gpumlp-other"}, "does not say"),
        ({"format_version": 9}, "format version 9"),
    ],
)
def test_damaged_files(tmp_path: Path, changes: dict, message: str) -> None:
    path = tmp_path / "e.npz"
    gpumlp.Ensemble(models("numpy", "identity", 2)).save(path)
    with np.load(path) as old:
        content = {name: old[name] for name in old.files}
    header = {**json.loads(content["header"].tobytes()), **changes}
    content["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **content)
    with pytest.raises(gpumlp.ModelFileError, match=message):
        gpumlp.load(path, "numpy")


def test_members_of_a_file_that_do_not_fit_together(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    gpumlp.Ensemble(models("numpy", "identity", 2)).save(path)
    with np.load(path) as old:
        content = {name: old[name] for name in old.files}
    header = json.loads(content["header"].tobytes())
    header["members"][1]["output"] = "exp"
    content["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **content)
    with pytest.raises(gpumlp.ModelFileError, match="members must have the same"):
        gpumlp.load(path, "numpy")


def test_bad_input(device: str, tmp_path: Path) -> None:
    X, y = rows("softmax")
    made, other = models(device, "softmax"), models(device, "identity")
    trainer = gpumlp.Trainer(made[0], loss="softmax_cross_entropy", optimizer="sgd")
    for given, kind, message in [
        ([], ValueError, "models is empty"),
        (made[0], TypeError, "one MLP; expected a list"),
        ([made[0], 3], TypeError, r"models\[1\]=3"),
        ([trainer], TypeError, "give its model"),
        (
            [made[0], gpumlp.MLP([6, 3], device=device)],
            ValueError,
            r"models\[1\] has inputs 6, .* 5",
        ),
        ([made[0], gpumlp.MLP([5, 3], device=device)], ValueError, r"models\[1\] has output 'identity'"),
        ([made[0], other[0]], ValueError, r"models\[1\] has outputs 2, models\[0\] 3"),
    ]:
        with pytest.raises(kind, match=message):
            gpumlp.Ensemble(given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size=0"):
        gpumlp.greedy_ensemble(made, X, y, 0)
    with pytest.raises(ValueError, match=r"unknown metric 'rmse'.*output is 'softmax'"):
        gpumlp.greedy_ensemble(made, X, y, 2, metric="rmse")
    with pytest.raises(ValueError, match="has 40 rows"):
        gpumlp.greedy_ensemble(made, X, y[:3], 2)
    made[1].weights[0] = np.full((5, 4), np.inf)
    with pytest.raises(ValueError, match="ensemble's model 1 was not saved: layer 0"):
        gpumlp.Ensemble(made).save(tmp_path / "e.npz")
    ensemble = gpumlp.Ensemble(made[:1])
    ensemble.extra = {"x": object()}
    with pytest.raises(ValueError, match="extra cannot be written as JSON"):
        ensemble.save(tmp_path / "e.npz")
    assert not list(tmp_path.iterdir())
