"""`forward(keep=True)` and `backward`: values, masks, buffers, and what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.activations import ACTIVATIONS

H = 1e-5
RNG = np.random.default_rng(5)
ROWS, WAY = RNG.normal(size=(9, 5)), RNG.normal(size=(9, 3))


def network(device: str, activation: Any = "tanh", sizes: tuple[int, ...] = (5, 7, 6, 3), **more: Any) -> Any:
    return gpumlp.MLP(sizes, activation, init=0.5, dtype="float64", device=device, **more)


def placed(model: Any, *arrays: Any) -> list[Any]:
    return [model.backend.asarray(a.copy()) for a in arrays]


def host(array: Any) -> np.ndarray:
    return np.asarray(array.get() if hasattr(array, "get") else array)


@pytest.mark.parametrize("activation", [*sorted(ACTIVATIONS), None])
def test_gradients_against_differences(device: str, activation: str | None) -> None:
    """Along random directions of the parameters and of the rows; None: a network without hidden layers."""
    model = network(device, activation) if activation else network(device, sizes=(5, 3))
    X, R = placed(model, ROWS, WAY)
    Y = model.forward(X, keep=True)
    close(host(Y), host(model.forward(X)), "network")
    assert [h.shape for h in model.hidden] == [(9, n) for n in model.layer_sizes[1:-1]]
    grads = model.backward(R, inputs=True)
    start, rng = host(model.flat).copy(), np.random.default_rng(1)

    def differences(array: Any, before: np.ndarray, way: np.ndarray, given: Any) -> float:
        found = []
        for h in (H, -H):
            model.backend.copy(array, before + h * way)
            found.append(float((host(model.forward(given)) * WAY).sum()))
        model.backend.copy(array, before)
        return (found[0] - found[1]) / (2 * H)

    for _ in range(4):
        way = rng.normal(size=start.shape) * (start != 0)
        close(
            host(grads.flat) @ way, np.asarray(differences(model.flat, start, way, X)), "central differences"
        )
        way = rng.normal(size=ROWS.shape)
        numeric = differences(X, ROWS, way, X)
        close((host(grads.inputs) * way).sum(), np.asarray(numeric), "central differences")
    for own, view in zip((*model.weights, *model.biases), grads, strict=True):
        assert own.shape == view.shape and own.strides == view.strides


def test_the_masks_are_those_of_the_trainers_steps(device: str) -> None:
    model = network(device, "relu", dropout=[0.3, 0.5], seed=4)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", seed=4)
    for t in (0, 1, 2**24 + 5):
        model.dropout_step = trainer.optimizer.t = t
        Y = model.forward(ROWS, keep=True, training=True)
        assert model.dropout_step == t + 1
        grads = model.backward((Y - WAY) / WAY.size)
        _, expected = trainer.loss_and_grads(ROWS, WAY)
        for found, wanted in zip(grads, (*expected.weights, *expected.biases), strict=True):
            close(host(found), wanted, "network")
        assert (host(model.hidden[1]) == 0).mean() > 0.3
    close(host(model.forward(ROWS, keep=True)), host(model.forward(ROWS)), "network")
    assert model.dropout_step == 2**24 + 6


@pytest.mark.parametrize("kind", [None, "cosine", "periodic", "piecewise"])
def test_embedded_inputs(device: str, kind: str | None) -> None:
    X = np.column_stack([ROWS[:, :4], np.arange(9) % 3])
    more: dict[str, Any] = {"categories": {4: 3}}
    if kind == "piecewise":
        embedding = gpumlp.Embedding.piecewise(X, 4, bins=3, **more)
    else:
        embedding = gpumlp.Embedding(kind, 4, **more)
    model = network(device, embedding=embedding)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd")
    Y = model.forward(X, keep=True)
    grads = model.backward((Y - WAY) / WAY.size)
    _, expected = trainer.loss_and_grads(X, WAY)
    assert grads.embedding.keys() == model.embedding_parameters.keys() == expected.embedding.keys()
    for name, found in grads.embedding.items():
        close(host(found), expected[-1][name], "network")
    for found, wanted in zip(grads, (*expected.weights, *expected.biases), strict=True):
        close(host(found), wanted, "network")
    with pytest.raises(ValueError, match="embeds its inputs"):
        model.backward(WAY, inputs=True)
    before = host(model.flat).copy()
    gpumlp.SGD(lr=0.5).update([*model.weights, *model.biases], grads)
    assert model.embedded is not None
    assert (host(model.flat)[model.embedded.start :] == before[model.embedded.start :]).all()


@pytest.mark.parametrize("rule", ["adam", "sgd", "muon"])
def test_updates_of_a_whole_network(device: str, rule: str) -> None:
    """As one buffer or array by array: the same; and padding stays 0."""
    made = []
    for form in (lambda g: g, list, lambda g: [*g.weights, *g.biases]):
        model, optimizer = network(device), gpumlp.optimizers.get_optimizer(rule)
        optimizer.l2 = 0.1
        for _ in range(3):
            model.forward(ROWS, keep=True)
            optimizer.update([*model.weights, *model.biases], form(model.backward(WAY)))
        assert optimizer.t == 3
        made.append(host(model.flat))
    for found in made[1:]:
        close(found, made[0], "network")
    inside = network("numpy")
    for parameter in (*inside.weights, *inside.biases):
        parameter[...] = np.nan
    assert (made[0][~np.isnan(inside.flat)] == 0).all()
    changed = network(device)
    grads = changed.forward(ROWS, keep=True) is not None and changed.backward(WAY)
    before = [host(p).copy() for p in (*changed.weights, *changed.biases)]
    gpumlp.SGD(lr=0.1).update([changed.weights[-1]], [grads.weights[-1]])
    same = [(host(p) == b).all() for p, b in zip((*changed.weights, *changed.biases), before, strict=True)]
    assert same == [True, True, False, True, True, True]


def test_gradients_of_the_trainer_are_an_update_too(device: str) -> None:
    model = network(device)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.SGD(lr=0.1))
    X, y = placed(model, ROWS, WAY)
    other = network(device)
    _, grads = gpumlp.Trainer(other, loss="squared_error", optimizer="sgd").loss_and_grads(X, y)
    trainer.step(X, y)
    gpumlp.SGD(lr=0.1).update([*other.weights, *other.biases], grads)
    close(host(other.flat), host(model.flat), "network")


def test_buffers_are_used_again(device: str) -> None:
    model = network(device)
    Y, first = model.forward(ROWS, keep=True), model.backward(WAY)
    values = [host(g).copy() for g in first]
    again = model.forward(2 * ROWS, keep=True)
    if model.backend.device == "cpu":  # else a copy, as the rows are on the host
        assert np.shares_memory(Y, again)
    for _ in range(2):  # more than once for one pass, with the same result
        assert model.backward(WAY) is first
    assert any((host(g) != v).any() for g, v in zip(first, values, strict=True))
    for n in (1, 2, 3, 4, 5, 6, 9):  # more sizes than are kept
        part = model.forward(ROWS[:n], keep=True)
        close(host(part), host(model.forward(ROWS[:n])), "network")
        model.backward(WAY[:n])
    for found, value in zip(first, values, strict=True):
        close(host(found), value, "network")


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64", ">f8", "F", "rows"])
def test_rows_of_any_kind(device: str, dtype: str) -> None:
    X = np.round(10 * np.abs(ROWS))
    given = {"F": np.asfortranarray(X), "rows": np.repeat(X, 2, axis=0)[::2]}.get(dtype)
    given = X.astype(dtype) if given is None else given
    d = np.repeat(np.asfortranarray(WAY), 2, axis=0)[::2] if dtype in "F rows" else WAY.astype("float32")
    model, plain = network(device), network(device)
    for each, rows, way in ((model, given, d), (plain, X, d.astype("float64").copy())):
        each.forward(rows, keep=True)
        each.backward(way)
    for found, wanted in zip(model.backward(d), plain.backward(d), strict=True):
        assert (host(found) == host(wanted)).all()


def test_what_changes_between_passes_counts(device: str) -> None:
    model = network(device, "tanh")
    model.forward(ROWS, keep=True)
    model.activations = "silu"
    close(host(model.forward(ROWS, keep=True)), host(model.forward(ROWS)), "network")
    for rate in (0.2, 0.8):
        model.dropouts = rate
        model.forward(ROWS, keep=True, training=True)
        assert abs((host(model.hidden[0]) == 0).mean() - rate) < 0.2
    model.to("numpy" if device != "numpy" else "cpu")
    with pytest.raises(RuntimeError, match=r"no pass was kept on cpu.*keep=True"):
        model.backward(WAY)
    close(host(model.forward(ROWS, keep=True)), host(model.forward(ROWS)), "network")


def test_views_stay_the_same(device: str) -> None:
    """`Optimizer.update` knows arrays again; other buffers have other views."""
    model = network(device)
    assert all(a is b for a, b in zip(model.weights, model.weights, strict=True))
    model.weights[0] = np.ones((5, 7))
    assert (host(model.weights[0]) == 1).all()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.weights[0][...] = 2
        assert (host(other.forward(ROWS, keep=True)) == host(other.forward(ROWS))).all()
        assert (host(model.weights[0]) == 1).all()


def test_copies_know_nothing_of_passes(device: str) -> None:
    model = network(device)
    model.forward(ROWS, keep=True)
    grads = pickle.loads(pickle.dumps(tuple(map(host, model.backward(WAY)))))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(RuntimeError, match="no pass was kept"):
            other.backward(WAY)
        other.forward(ROWS, keep=True)
        for found, wanted in zip(other.backward(WAY), grads, strict=True):
            assert (host(found) == wanted).all()


def test_bad_calls(device: str) -> None:
    model = network(device, dropout=0.5)
    with pytest.raises(RuntimeError, match="no pass was kept"):
        model.backward(WAY)
    with pytest.raises(RuntimeError, match="no pass was kept"):
        model.hidden  # noqa: B018
    with pytest.raises(ValueError, match="training=True needs keep=True"):
        model.forward(ROWS, training=True)
    with pytest.raises(ValueError, match="X has no rows"):
        model.forward(ROWS[:0], keep=True)
    with pytest.raises(ValueError, match="X contains nan"):
        model.forward(np.full((9, 5), np.nan), keep=True)
    with pytest.raises(ValueError, match="dropout_step"):
        model.dropout_step = -1
    with pytest.raises((ValueError, TypeError), match="keep"):
        model.forward(ROWS, keep="yes")
    model.forward(ROWS, keep=True)
    for bad in (WAY[:8], WAY[:, :2], WAY[:, 0]):
        with pytest.raises(ValueError, match=r"dY has shape .* expected .* \(9, 3\)"):
            model.backward(bad)
    with pytest.raises(TypeError, match="dY is None"):
        model.backward(None)
    grads = model.backward(WAY)
    with pytest.raises(ValueError, match="inputs=True"):
        grads.inputs  # noqa: B018
    one = network(device, sizes=(5, 1))
    one.forward(ROWS, keep=True)
    close(host(one.backward(WAY[:, 0]).flat), host(one.backward(WAY[:, :1]).flat), "exact")
