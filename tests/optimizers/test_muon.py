"""Muon: matrices against PyTorch in double precision, and in a network the weights and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from oracles import orthogonal
from rules import PENALTIES, name_of
from tolerances import close

import gpumlp
from gpumlp.backends.base import Steps
from gpumlp.optimizers import newton_schulz

RNG = np.random.default_rng(0)
SHAPES = [(7, 3), (3, 7), (5, 5), (1, 4), (4, 1), (16, 40)]


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """PyTorch, whose Newton-Schulz rounds are in bfloat16, made to stay in double precision."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(torch.float32)


CASES: list[dict[str, Any]] = [
    {},
    {"nesterov": False, "momentum": 0.5},
    {"match_rms": True, "weight_decay": 0.0},
    {"ns_steps": 2, "weight_decay": 0.5},
]


@pytest.mark.parametrize("options", CASES, ids=name_of)
def test_hundred_steps_of_pytorch(on: Any, torch: Any, options: dict) -> None:
    start = [RNG.normal(size=shape) for shape in SHAPES]
    params, ours = [on.asarray(p.copy()) for p in start], gpumlp.Muon(lr=0.01, **options)
    theirs = [torch.tensor(p, requires_grad=True) for p in start]
    adjust = {"adjust_lr_fn": "match_rms_adamw" if options.get("match_rms") else "original"}
    known = {key: value for key, value in options.items() if key != "match_rms"}
    optimizer = torch.optim.Muon(theirs, lr=0.01, **known, **adjust)
    for _ in range(100):
        grads = [RNG.normal(size=p.shape) + 0.3 * p.detach().numpy() for p in theirs]
        ours.update(params, [on.asarray(g) for g in grads])
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
    for p, q in zip(params, theirs, strict=True):
        close(on.to_numpy(p), q.detach().numpy(), "100 steps")


def test_networks_are_pytorchs(device: str, torch: Any) -> None:
    """Weights by Muon, biases by AdamW without decay."""
    X, y = RNG.normal(size=(24, 5)), RNG.normal(size=(24, 2))
    model = gpumlp.MLP([5, 9, 2], "tanh", dtype="float64", device=device)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.Muon(lr=0.01), batch_size=24)
    arrays = [a for pair in model.get_parameters() for a in pair]
    params = [torch.tensor(a.T.copy(), requires_grad=True) for a in arrays]  # weights (n_out, n_in)
    optimizers = [
        torch.optim.Muon(params[::2], lr=0.01),
        torch.optim.AdamW(params[1::2], lr=0.01, eps=1e-6, weight_decay=0.0),
    ]
    for _ in range(20):
        trainer.step(X, y)
        hidden = torch.tanh(torch.tensor(X) @ params[0].T + params[1])
        loss = ((hidden @ params[2].T + params[3] - torch.tensor(y)) ** 2).mean() / 2
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    for a, p in zip([a for pair in model.get_parameters() for a in pair], params, strict=True):
        close(a, p.detach().numpy().T, "50 training steps")


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("penalties", PENALTIES, ids=name_of)
def test_a_step_of_a_network(device: str, penalties: dict, clip: float | None) -> None:
    """Two steps with penalties, clipping and averages, by hand; each layer's gradient from the trainer."""
    X, y = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 1))
    model = gpumlp.MLP([3, 12, 1], "tanh", dtype="float64", device=device, init=0.8)
    rule = gpumlp.Muon(lr=0.05, momentum=0.6, average=0.9, **penalties)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=rule, batch_size=8, clip_norm=clip)
    plain = gpumlp.MLP([3, 12, 1], "tanh", dtype="float64", device=device)
    probe = gpumlp.Trainer(plain, loss="squared_error", optimizer="sgd")
    weights = [a.copy() for pair in model.get_parameters() for a in pair]
    v, s = ([np.zeros_like(a) for a in weights] for _ in range(2))
    average = [a.copy() for a in weights]
    for t in (1, 2):
        plain.set_parameters(list(zip(weights[::2], weights[1::2], strict=True)))
        grads = [g for pair in probe.loss_and_grads(X, y)[1] for g in pair]
        norm = np.sqrt(sum(np.sum(g**2) for g in grads))
        for n, w in enumerate(weights):
            g, lr = grads[n] * (1 if clip is None else min(1, clip / norm)), 0.05
            if n % 2:
                v[n] = 0.9 * v[n] + 0.1 * g
                s[n] = 0.999 * s[n] + 0.001 * g**2
                w[:] -= lr * v[n] / (1 - 0.9**t) / (np.sqrt(s[n] / (1 - 0.999**t)) + 1e-6)
            else:
                g = g + penalties["l2"] * w
                g = g if penalties["proximal"] else g + penalties["l1"] * np.sign(w)
                v[n] = 0.6 * v[n] + 0.4 * g
                size = np.sqrt(max(1, w.shape[1] / w.shape[0]))
                w[:] *= 1 - lr * penalties["weight_decay"]
                w[:] -= lr * size * orthogonal(0.6 * v[n] + 0.4 * g)
                if penalties["proximal"]:
                    w[:] = np.sign(w) * np.maximum(np.abs(w) - lr * penalties["l1"], 0)
            average[n] += max(0.1, 9 / (t + 9)) * (w - average[n])
        trainer.step(X, y)
        for shown, expected in zip([a for p in model.get_parameters() for a in p], average, strict=True):
            close(shown, expected, "50 training steps")


def test_newton_schulz_of_members(backend: Any) -> None:
    """The third one has zeros where the others have more rows and columns, and keeps them."""
    u = RNG.normal(size=(3, 5, 9))
    u[2, 3:] = u[2, :, 6:] = 0
    o = backend.zeros((3, 5, 16), "f8")[..., :9]
    backend.copy(o, u)
    backend.record(newton_schulz(backend, o, 5), Steps(backend)).run()
    got = backend.to_numpy(o)
    for k in range(3):
        np.testing.assert_allclose(got[k], orthogonal(u[k]), rtol=0, atol=1e-10)
    assert (got[2, 3:] == 0).all() and (got[2, :, 6:] == 0).all()


@pytest.mark.memory
@pytest.mark.parametrize("shape", [*SHAPES, (33, 65)])
def test_newton_schulz(backend: Any, dtype: Any, shape: tuple[int, int]) -> None:
    u = RNG.normal(size=shape).astype(dtype)
    o = backend.zeros((shape[0], shape[1] + 3), dtype)[:, : shape[1]]
    backend.copy(o, u)
    plan = backend.record(newton_schulz(backend, o, 5), Steps(backend))
    plan.run()
    got = backend.to_numpy(o)
    np.testing.assert_allclose(
        got, orthogonal(u.astype(float)), rtol=0, atol=2e-4 if dtype == "f4" else 1e-10
    )
    values = np.linalg.svd(got.astype(float))[1]
    assert values.max() < 1.3 and (values > 0.6).mean() > 0.8
    backend.copy(o, 0 * u)
    plan.run()
    assert (backend.to_numpy(o) == 0).all()
    u[0, 0] = np.nan
    backend.copy(o, u)
    plan.run()
    assert np.isnan(backend.to_numpy(o)).all()


def test_arrays_of_all_layouts(on: Any) -> None:
    """Transposed, strided, empty; float32 beside float64; the second call uses what the first one made."""
    base = RNG.normal(size=(8, 12))
    views = [base.T.copy().T, base[::2, ::3].copy(), base[:0], base[0], base.astype(np.float32)]
    params = [on.asarray(view.copy()) for view in views]
    params[0] = on.asarray(base.T.copy()).T
    params[1] = on.asarray(base.copy())[::2, ::3]
    grads = [np.ones(p.shape, p.dtype) + np.arange(p.size, dtype=p.dtype).reshape(p.shape) for p in params]
    optimizer, straight = gpumlp.Muon(lr=0.1), gpumlp.Muon(lr=0.1)
    copies = [on.asarray(np.ascontiguousarray(on.to_numpy(p))) for p in params]
    for _ in range(3):
        optimizer.update(params, [on.asarray(g) for g in grads])
        straight.update(copies, [on.asarray(g) for g in grads])
    for p, q in zip(params, copies, strict=True):
        close(on.to_numpy(p), on.to_numpy(q), "optimizer")


@pytest.mark.parametrize("bad", [0, -1, 2.5, "x", True, None])
def test_rounds_that_make_no_sense(bad: Any) -> None:
    with pytest.raises(ValueError, match="Muon: ns_steps="):
        gpumlp.Muon(ns_steps=bad)
    assert gpumlp.Muon(ns_steps=3.0).ns_steps == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"match_rms": True, "average": 0.9, "proximal": True}], ids=name_of)
def test_many_networks(device: str, options: dict) -> None:
    """On CUDA in one plan, with widths, penalties and clipping of their own; a matrix of zeros beside it."""
    X, y = RNG.normal(size=(40, 4)), RNG.normal(size=40)

    def make() -> list[gpumlp.Trainer]:
        trainers = []
        for s in range(3):
            sizes = [4, 6 - s, 3 + 3 * s, 1]  # the wide side of the padded matrix is not always the member's
            model = gpumlp.MLP(sizes, "tanh", seed=s, device=device, dtype="float64")
            rule = gpumlp.Muon(lr=0.01 * (s + 1), l1=0.01 if options else 0.1 * s, l2=0.1 * s, **options)
            rule.weight_decay = 0.1 * (2 - s)
            clip = [None, 0.1, 1.0][s]
            trainers.append(
                gpumlp.Trainer(model, loss="squared_error", optimizer=rule, batch_size=16, clip_norm=clip)
            )
        return trainers

    alone, many = make(), make()
    histories = gpumlp.fit_many(many, X, y, epochs=4, progress=False)
    if device.startswith("cuda"):
        assert repr(histories).startswith("3 networks in 1 plan:")
    for one, other in zip(alone, many, strict=True):
        one.fit(X, y, epochs=4, progress=False)
        host, (mine, its) = one.model.backend.to_numpy, (t.optimizer.state[0] for t in (one, other))
        close(host(other.model.flat), host(one.model.flat), "50 training steps")
        for name in one.optimizer.arrays():
            close(host(its[name]), host(mine[name]), "50 training steps")


def test_settings_count_from_the_next_step(device: str) -> None:
    X, y = RNG.normal(size=(16, 4)), RNG.normal(size=16)
    results = []
    for change in ({}, {"momentum": 0.1}, {"ns_steps": 1}, {"match_rms": True}, {"nesterov": False}):
        model = gpumlp.MLP([4, 6, 1], device=device, dtype="float64")
        trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="muon", batch_size=16)
        trainer.step(X, y)
        for name, value in change.items():
            setattr(trainer.optimizer, name, value)
        trainer.step(X, y)
        results.append(float(model.predict(X).sum()))
    assert len(set(results)) == len(results)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "tf32"])
def test_half_precision(device: str, precision: str) -> None:
    """What the products read is stored in half precision by the launches that move weights and biases."""
    if not device.startswith("cuda"):
        pytest.skip("the host has no half precision")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 4))
    results = []
    for name in ("float32", precision):
        model = gpumlp.MLP([4, 16, 1], "tanh", device=device)
        rule = gpumlp.Muon(lr=0.02, average=0.5)
        trainer = gpumlp.Trainer(
            model, loss="squared_error", optimizer=rule, batch_size=16, precision=name, clip_norm=1.0
        )
        history = trainer.fit(X, np.tanh(X.sum(axis=1)), epochs=20, progress=False)
        results.append(history.loss[-1])
        assert history.loss[-1] < 0.1 * history.loss[0]
    assert abs(results[1] - results[0]) < 0.2 * results[0]
