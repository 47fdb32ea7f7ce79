"""`gpumlp evaluate`, `predict` and `info` take the files of ensembles as those of models."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.cli.figures import evaluate_model
from gpumlp.losses import LOSSES
from gpumlp.preparation import load_prepared
from gpumlp.tables.preparation import Preparation


def ensemble_of(names: list[str], out: str) -> gpumlp.Ensemble:
    models = [gpumlp.load(name, "cpu") for name in names]
    ensemble = gpumlp.Ensemble([models[0], *models])
    ensemble.extra = models[0].extra
    ensemble.save(out)
    return ensemble


@pytest.mark.parametrize("table", ["flowers", "prices"])
def test_commands(run, request, table):
    data = request.getfixturevalue(table)
    target = {"flowers": "kind", "prices": "price"}[table]
    for number in (1, 2):  # on the same rows, so with the same scaling
        words = ("--target", target, "--hidden", 8 * number, "--epochs", 5, "--lr", 0.02)
        assert run("train", data, *words, "--out", f"{number}.npz").code == 0
    ensemble_of(["1.npz", "2.npz"], "e.npz")

    result = run("info", "e.npz")
    assert result.code == 0 and "Ensemble(3 networks (2 different)" in result.out
    assert re.search(rf"^gives +{target}", result.out, re.M)

    # the mean, made by hand from the predictions of the single models
    proba = ["--proba"] if table == "flowers" else []
    answers = {}
    for name in ("1", "2", "e"):
        assert run("predict", f"{name}.npz", data, "-o", "p.csv", *proba).code == 0
        with open("p.csv", newline="") as file:
            rows = list(csv.reader(file))[1:]
        answers[name] = np.array([row[1:] if proba else row for row in rows], float)
        labels = [row[0] for row in rows]
    mean = (2 * answers["1"] + answers["2"]) / 3
    close(answers["e"], mean, "figures", dtype="float32")
    prepared = load_prepared("e.npz", "cpu")
    with open(data, newline="") as file:
        rows = list(csv.reader(file, delimiter=";" if table == "prices" else ","))[1:]
    X = np.array([row[:-1] for row in rows], float)
    out = run("evaluate", "e.npz", data).out
    printed = [float(text) for text in re.search(r"^data +\d+ +(.*)$", out, re.M)[1].split()]
    if table == "flowers":
        assert list(prepared.predict(X)) == labels
        assert printed[1] == pytest.approx(
            np.mean([a == r[-1] for a, r in zip(labels, rows, strict=True)]), abs=5e-5
        )
        right = mean[np.arange(len(rows)), [prepared.classes.index(row[-1]) for row in rows]]
        assert printed[0] == pytest.approx(-np.log(right).mean(), rel=1e-3)
        assert "recall" in out
    else:
        y = np.array([row[-1] for row in rows], float)
        assert printed[1] == pytest.approx(np.sqrt(np.mean((mean[:, 0] - y) ** 2)), rel=1e-3)


def test_a_mean_without_a_common_preparation_is_refused(run, fails, flowers, prices):
    words = ("--hidden", 8, "--epochs", 1)
    assert run("train", flowers, "--target", "kind", *words, "--out", "f.npz").code == 0
    ensemble = ensemble_of(["f.npz"], "e.npz")
    ensemble.extra["preparation"]["classes"] = ["a", "b"]
    ensemble.save("e.npz")
    assert "its stored preparation" in fails("evaluate", "e.npz", flowers, "--target", "kind")


@pytest.mark.parametrize("loss", [name for name, loss in LOSSES.items() if not loss.levels])
def test_figures_of_equal_networks_are_those_of_one(loss):
    """For every loss: from probabilities or values back to what the loss is given."""
    kind = LOSSES[loss]
    n_out = 3 if kind.classes else 1
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 4))
    y = rng.integers(0, 3 if kind.classes else 2, 50)
    model = gpumlp.MLP([4, 6, n_out], dtype="float64", device="numpy")
    model.output = kind.link
    prep = Preparation(
        "classification" if kind.metric == "accuracy" else "regression", loss, target_scale=2.5
    )
    y = y.astype(np.int64 if kind.classes else np.float64)
    one = evaluate_model(model, prep, X, y)
    other = evaluate_model(gpumlp.Ensemble([model, model]), prep, X, y)
    assert one.keys() == other.keys()
    for name, value in one.items():
        close(np.array(other[name]), np.array(value), "figures", dtype="float64")
