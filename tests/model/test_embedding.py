"""Embeddings as settings: what is accepted, what a model with one says, keeps in files and refuses."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE

import gpumlp
from gpumlp.files.archive import write_archive

E = gpumlp.Embedding
X = np.random.default_rng(0).normal(size=(60, 4))
X[:, 2] = np.arange(60) % 5
Y = X[:, 0] * X[:, 1] + X[:, 2]
EMBEDDINGS = [
    E("cosine", 3, categories={2: 5}),
    E("periodic", 3, frequencies=2, columns=[1, 0]),
    E.piecewise(X, 3, bins=6, categories={2: 5}, category_size=2),
    E(None, categories={2: 5}),
]


def model(embedding: gpumlp.Embedding, device: str = "cpu", **options: Any) -> gpumlp.MLP:
    return gpumlp.MLP([4, 6, 1], "tanh", embedding=embedding, device=device, seed=2, **options)


def flat(m: gpumlp.MLP) -> np.ndarray:
    return m.backend.to_numpy(m.flat)


# ---- settings -----------------------------------------------
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"kind": "cosin"}, "unknown kind 'cosin'.*cosine"),
        ({"kind": 3}, "kind"),
        ({"size": 0}, "size=0; expected an integer >= 1"),
        ({"size": 2.0}, "size=2.0"),
        ({"scale": -1.0}, "scale=-1.0"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"frequencies": 0}, "frequencies=0"),
        ({"category_size": 0}, "category_size=0"),
        ({"columns": [-1]}, "columns=-1"),
        ({"columns": [0, 0]}, "each column once"),
        ({"columns": [0, 1], "categories": {1: 3}}, "each column once"),
        ({"categories": {0: 0}}, "categories=0"),
        ({"categories": {0: 2**24 + 1}}, "at most 16777216"),
        ({"kind": "piecewise"}, r"expected edges with kind='piecewise'.*Embedding.piecewise"),
        ({"edges": [[0, 1]]}, "expected edges with kind='piecewise'"),
        ({"kind": "piecewise", "edges": [[0, 1], [1, 1]]}, r"edges\[1\].*ascending"),
        ({"kind": "piecewise", "edges": [[0]]}, r"edges\[0\].*at least two"),
        ({"kind": "piecewise", "edges": [[0, float("inf")]]}, "finite"),
    ],
)
def test_bad_settings(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        E(**settings)


@pytest.mark.parametrize(
    "settings", [{"columns": 3}, {"categories": [2, 3]}, {"kind": "piecewise", "edges": 1}]
)
def test_settings_of_the_wrong_type(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="expected a"):
        E(**settings)


def test_what_a_network_does_not_have() -> None:
    with pytest.raises(ValueError, match="column 4; the network has 4 inputs"):
        model(E(columns=[4]))
    with pytest.raises(ValueError, match="edges has 1 entries; expected one for each of 4 numbers"):
        model(E("piecewise", edges=[[0, 1]]))
    with pytest.raises(TypeError, match=r"embedding='cosine'; expected a gpumlp\.Embedding"):
        model("cosine")  # type: ignore[arg-type]


def test_edges_from_data() -> None:
    """Equally many rows in each bin; fewer bins where values repeat; one for a constant column."""
    data = np.column_stack([np.arange(101.0), np.arange(101) % 2, np.full(101, 3.0)])
    edges = E.piecewise(data, bins=4).edges
    assert edges == ((0, 25, 50, 75, 100), (0, 1), (3, 4))
    assert E.piecewise(data, bins=4, categories={1: 2}).edges == (edges[0], edges[2])
    assert E.piecewise(data, bins=4, columns=[2, 0]).edges == (edges[2], edges[0])
    for wrong in (data[0], data[:0], data.astype(str)):
        with pytest.raises(ValueError, match="expected rows of numbers"):
            E.piecewise(wrong)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_shapes_and_counts(embedding: gpumlp.Embedding) -> None:
    m = model(embedding)
    (W, b), (V, c), own = m.get_parameters()
    assert W.shape == (embedding.width(4), 6)
    assert {name: a.shape for name, a in own.items()} == embedding.shapes(4)
    assert m.n_params == sum(a.size for a in (W, b, V, c, *own.values()))
    assert f"{m.n_params} parameters" in repr(m)
    assert "of codes embedded" in repr(m) or "embedding of" in repr(m)
    views = m.embedding_parameters
    for name, view in views.items():
        view[...] = 7
        assert (m.get_parameters()[-1][name] == 7).all()


def test_first_values() -> None:
    """The documented ones, the same for a seed; the layers are drawn first."""
    e = E("periodic", 8, scale=0.5, frequencies=500, categories={2: 300}, category_size=4)
    m = model(e)
    own = m.get_parameters()[-1]
    assert np.abs(own["frequency"]).max() == 1.5
    assert abs(own["frequency"].std() - 0.5) < 0.02
    for name, bound in (("weight", 1000**-0.5), ("bias", 1000**-0.5), ("vectors", 0.5)):
        assert 0.8 * bound < np.abs(own[name]).max() <= bound
    np.testing.assert_array_equal(flat(m), flat(model(e)))
    own = model(E("cosine", 3)).get_parameters()[-1]
    assert not own["phase"].any() and not own["amplitude"].any() and not own["shift"].any()
    assert own["frequency"].all()


def test_only_weights_are_penalised(device: str) -> None:
    """Amplitudes, weights and vectors; not frequencies, phases, shifts and biases."""
    for embedding in EMBEDDINGS:
        m = model(embedding, device, dtype="float64")
        rng = np.random.default_rng(0)
        m.set_parameters(
            [
                *m.get_parameters()[:-1],
                {n: rng.normal(size=a.shape) for n, a in m.get_parameters()[-1].items()},
            ]
        )
        losses = [
            gpumlp.Trainer(m, loss="squared_error", optimizer="sgd", l2=l2).loss_and_grads(X, Y)[0]
            for l2 in (0.0, 2.0)
        ]
        (W, _), (V, _), own = m.get_parameters()
        heavy = [W, V, *(a for n, a in own.items() if n in ("amplitude", "weight", "vectors"))]
        expected = sum(np.square(a).sum() for a in heavy)
        np.testing.assert_allclose(losses[1] - losses[0], expected, rtol=RELATIVE["run"])


def test_wrong_parameters_are_refused() -> None:
    m = model(EMBEDDINGS[0])
    good = m.get_parameters()
    before = flat(m)
    with pytest.raises(ValueError, match="parameters of the embedding: NoneType; expected a dict"):
        m.set_parameters(good[:-1])
    with pytest.raises(ValueError, match=r"expected a dict of \['amplitude', 'frequency'"):
        m.set_parameters([*good[:-1], {"frequency": good[-1]["frequency"]}])
    with pytest.raises(ValueError, match=r"phase of shape \(3,\) was given, expected \(3, 3\)"):
        m.set_parameters([*good[:-1], {**good[-1], "phase": np.zeros(3)}])
    np.testing.assert_array_equal(flat(m), before)


# ---- codes -----------------------------------------------
@pytest.mark.parametrize(
    ("code", "why"),
    [(5, "numbers from 0 to 5"), (-1, "numbers from -1 to 4"), (1.5, "fractions")],
)
def test_codes_that_a_column_does_not_have(device: str, code: float, why: str) -> None:
    m = model(EMBEDDINGS[0], device)
    t = gpumlp.Trainer(m, loss="squared_error", optimizer="sgd")
    bad = X.copy()
    bad[7, 2] = code
    before = flat(m)
    message = rf"X(_val)?\[:, 2\] holds {why}; the network embeds this column as 5 categories"
    for call in (
        lambda: m.predict(bad),
        lambda: t.fit(bad, Y, epochs=1, progress=False),
        lambda: t.fit(X, Y, epochs=1, validation=(bad, Y), progress=False),
        lambda: t.step(bad, Y),
        lambda: t.evaluate(bad, Y),
        lambda: gpumlp.fit_many([t], bad, Y, epochs=1, progress=False),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_array_equal(flat(m), before)


def test_codes_are_checked_for_each_of_many_networks(device: str) -> None:
    """A network without categories takes what another one does not."""
    bad = X.copy()
    bad[7, 2] = 5
    models = [gpumlp.MLP([4, 6, 1], device=device), model(EMBEDDINGS[0], device)]
    trainers = [gpumlp.Trainer(m, loss="squared_error", optimizer="sgd") for m in models]
    with pytest.raises(ValueError, match=r"trainers\[1\]: X\[:, 2\] holds numbers from 0 to 5"):
        gpumlp.fit_many(trainers, bad, Y, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"X_val\[:, 2\] holds numbers from 0 to 5"):
        gpumlp.fit_many(trainers, X, Y, validation=(bad, Y), epochs=1, progress=False)


# ---- copies and files -----------------------------------------------
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_copies(device: str, embedding: gpumlp.Embedding, tmp_path: Path) -> None:
    m = model(embedding, device)
    gpumlp.Trainer(m, loss="squared_error", optimizer="adam").fit(X, Y, epochs=2, progress=False)
    m.save(tmp_path / "m.npz")
    gpumlp.Ensemble([m, model(embedding, device), m]).save(tmp_path / "e.npz")
    ensemble = gpumlp.load(tmp_path / "e.npz", device)
    for other in (
        pickle.loads(pickle.dumps(m)),
        copy.deepcopy(m),
        gpumlp.load(tmp_path / "m.npz", device),
        ensemble.models[0],
    ):
        assert other.embedding == embedding
        np.testing.assert_array_equal(flat(other), flat(m))
        np.testing.assert_array_equal(other.predict(X), m.predict(X))
    expected = m.predict(X)
    np.testing.assert_allclose(m.to("numpy").predict(X), expected, rtol=RELATIVE["float32 run"], atol=1e-5)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_a_training_is_resumed(device: str, embedding: gpumlp.Embedding, tmp_path: Path) -> None:
    def trainer() -> gpumlp.Trainer:
        return gpumlp.Trainer(model(embedding, device), loss="squared_error", optimizer="adam", batch_size=25)

    whole, half = trainer(), trainer()
    whole.fit(X, Y, epochs=4, progress=False)
    half.fit(X, Y, epochs=2, progress=False)
    half.save(tmp_path / "t.npz")
    rest = gpumlp.Trainer.load(tmp_path / "t.npz", device)
    rest.fit(X, Y, epochs=2, progress=False)
    np.testing.assert_array_equal(flat(rest.model), flat(whole.model))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "sine"},
        {"size": -1},
        {"size": 10**9},
        {"columns": [0, 9]},
        {"categories": [[2, 5, 5]]},
        {"categories": 3},
        {"edges": [[1, 0]]},
        {"more": 1},
    ],
)
def test_a_damaged_embedding_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    model(EMBEDDINGS[0]).save(path)
    with np.load(path) as held:
        arrays = {name: held[name] for name in held.files}
    header = json.loads(arrays.pop("header").tobytes())
    header.pop("digest")
    header["embedding"].update(change)
    write_archive(path, header, arrays)
    with pytest.raises(gpumlp.ModelFileError):
        gpumlp.load(path)


def test_no_embedding_leaves_files_as_they_were(tmp_path: Path) -> None:
    gpumlp.MLP([4, 6, 1], device="cpu").save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as held:
        assert set(held.files) == {"header", "w0", "b0", "w1", "b1"}
        assert "embedding" not in json.loads(held["header"].tobytes())


def test_a_parameter_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    m = model(EMBEDDINGS[0])
    m.embedding_parameters["phase"][0, 0] = np.nan
    with pytest.raises(ValueError, match="the embedding has parameters that are NaN"):
        m.save(tmp_path / "m.npz")


def test_a_network_that_diverges_is_told(device: str) -> None:
    m = model(EMBEDDINGS[0], device)
    t = gpumlp.Trainer(m, loss="squared_error", optimizer=gpumlp.SGD(lr=1e30))
    with pytest.raises(gpumlp.DivergenceError):
        t.fit(X, Y, epochs=5, progress=False)
