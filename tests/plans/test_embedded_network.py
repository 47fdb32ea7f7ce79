"""Networks with embeddings: gradients by differences and against PyTorch, executors against each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tolerances import GRADIENT, RELATIVE, close

import gpumlp
from gpumlp.backends.base import Steps
from gpumlp.network import Stack
from gpumlp.plans import Workspace
from gpumlp.plans.operations import gather

H = 1e-5
ROWS = 37


def rows(seed: int = 0, n: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Columns 0, 1, 3 are numbers, 2 and 4 codes of 4 and 7 categories."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5))
    X[:, 2], X[:, 4] = rng.integers(0, 4, n), rng.integers(0, 6, n)  # no row has the last code
    return X, np.column_stack([np.sin(3 * X[:, 0]) + X[:, 2], X[:, 1] * (X[:, 4] > 2)])


CODES = {2: 4, 4: 7}
INNER = 0.6 * rows()[0]  # so that there are rows beyond the outer edges
E = gpumlp.Embedding
EMBEDDINGS = {
    "cosine": E("cosine", 4, scale=0.5, categories=CODES, category_size=3),
    "cosine of some": E("cosine", 3, scale=0.5, columns=[3, 0], categories={2: 4}),
    "periodic": E("periodic", 4, scale=0.5, frequencies=3, categories=CODES, category_size=3),
    "periodic of one": E("periodic", 5, scale=0.5, frequencies=4, columns=[1]),
    "piecewise": E.piecewise(INNER, 4, bins=5, categories=CODES, category_size=3),
    "piecewise of some": E.piecewise(INNER, 3, bins=3, columns=[3, 0, 4]),
    "categories": E(None, categories=CODES, category_size=9),
    "nothing": E(None),
    "no number": E("cosine", columns=[], categories={2: 4}),
    "no bins": E("piecewise", edges=[], columns=[], categories={2: 4}),
}
KINDS = sorted(EMBEDDINGS)


def of_member(kind: str, k: int) -> gpumlp.Embedding:
    """The same kind with a scale, or bins, of its own."""
    e = EMBEDDINGS[kind]
    if e.kind == "piecewise":
        codes = {"columns": e.columns, "categories": e.categories, "category_size": e.category_size}
        return E.piecewise(INNER + 0.1 * k, e.size, bins=(5, 3, 6, 5)[k], **codes)
    return replace(e, scale=0.1 * (k + 1))


def moved(parameters: list[Any], seed: int = 1) -> list[Any]:
    """The same, with noise: amplitudes begin at 0, where half of the gradient is 0."""
    rng = np.random.default_rng(seed)
    pairs = [tuple(a + 0.1 * rng.normal(size=a.shape) for a in pair) for pair in parameters[:-1]]
    return [*pairs, {name: a + 0.3 * rng.normal(size=a.shape) for name, a in parameters[-1].items()}]


def network(kind: str, device: str, dtype: str = "float64", **options: Any) -> gpumlp.MLP:
    model = gpumlp.MLP(
        [5, 8, 2], "tanh", embedding=EMBEDDINGS[kind], seed=3, dtype=dtype, device=device, **options
    )
    model.set_parameters(moved(model.get_parameters()))
    return model


def trainer(model: gpumlp.MLP, **options: Any) -> gpumlp.Trainer:
    settings = {"loss": "squared_error", "optimizer": gpumlp.Adam(lr=0.01), "batch_size": 16, **options}
    return gpumlp.Trainer(model, **settings)


def arrays(parameters: list[Any]) -> list[np.ndarray]:
    return [a for pair in parameters[:-1] for a in pair] + list(parameters[-1].values())


@pytest.mark.parametrize("penalties", [{}, {"l1": 0.05, "l2": 0.3}], ids=["free", "l1 l2"])
@pytest.mark.parametrize("kind", KINDS)
def test_central_differences(device: str, kind: str, penalties: dict[str, float]) -> None:
    model = network(kind, device)
    t, (X, y) = trainer(model, optimizer="sgd", **penalties), rows()
    parameters = model.get_parameters()
    gradients = arrays(t.loss_and_grads(X, y)[1])
    rng = np.random.default_rng(2)
    for array, gradient in zip(arrays(parameters), gradients, strict=True):
        for way in [rng.choice([-1.0, 1.0], array.shape) for _ in range(3)]:
            values = []
            for step in (H, -H):
                array[...] += step * way
                model.set_parameters(parameters)
                values.append(t.loss_and_grads(X, y)[0])
                array[...] -= step * way
            close(np.sum(gradient * way), (values[0] - values[1]) / (2 * H), "central differences")
    if kind != "nothing":
        assert min(np.abs(g).max() for g in gradients) > 1e-4


def torch_embedding(torch: Any, e: gpumlp.Embedding, p: dict[str, Any], X: Any) -> Any:
    """What the first layer reads, written from the description of `Embedding`."""
    numbers = list(range(5)) if e.columns is None else list(e.columns)
    numbers = [] if e.kind is None else [n for n in numbers if n not in e.categories]
    parts, turn = [], 2 * torch.pi
    for at, n in enumerate(numbers):
        x = X[:, n : n + 1]
        if e.kind == "cosine":
            wave = torch.cos(turn * (x * p["frequency"][at] + p["phase"][at]))
            parts.append(torch.cat([x, wave], 1) * p["amplitude"][at] + p["shift"][at])
        elif e.kind == "periodic":
            t = turn * x * p["frequency"][at]
            inner = torch.cat([torch.cos(t), torch.sin(t)], 1)
            parts.append(torch.relu(inner @ p["weight"][at] + p["bias"][at]))
        else:
            edges = torch.tensor(e.edges[at], dtype=X.dtype)
            place = (x - edges[:-1]) / (edges[1:] - edges[:-1])
            count = len(edges) - 1
            low, high = [float("-inf")] + [0.0] * (count - 1), [1.0] * (count - 1) + [float("inf")]
            inner = torch.minimum(torch.maximum(place, torch.tensor(low)), torch.tensor(high))
            parts.append(inner @ p["weight"][at, :count] + p["bias"][at])
    begin = 0
    for n, count in e.categories.items():
        parts.append(p["vectors"][begin + X[:, n].long()])
        begin += count
    rest = [n for n in range(5) if n not in numbers and n not in e.categories]
    return torch.cat([*parts, X[:, rest]], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_torch(device: str, dtype: Any, kind: str) -> None:
    """Output, loss and all gradients."""
    torch = pytest.importorskip("torch")
    model = network(kind, device, dtype.name)
    X, y = rows()
    *pairs, own = model.get_parameters()

    def leaf(a: np.ndarray) -> Any:
        return torch.tensor(a.astype(np.float64), requires_grad=True)

    (W, b), (V, c) = (tuple(map(leaf, pair)) for pair in pairs)
    p = {name: leaf(a) for name, a in own.items()}
    hidden = torch_embedding(torch, EMBEDDINGS[kind], p, torch.tensor(X)) @ W + b
    out = torch.tanh(hidden) @ V + c
    loss = 0.5 * ((out - torch.tensor(y)) ** 2).mean()
    loss.backward()
    close(model.forward(X), out.detach().numpy(), "network")
    value, gradients = trainer(model).loss_and_grads(X, y)
    close(value, loss.item(), "network", dtype=dtype)
    for got, wanted in zip(arrays(gradients), [W, b, V, c, *p.values()], strict=True):
        close(got, wanted.grad.numpy(), "network", scale=10)


@pytest.mark.parametrize("kind", KINDS)
def test_training_agrees_with_numpy(device: str, dtype: Any, kind: str) -> None:
    """Epochs with a shorter last batch, dropout, clipping and decay."""
    X, y = rows()
    results = []
    for executor in ("numpy", device):
        model = network(kind, executor, dtype.name, dropout=0.2)
        rule = gpumlp.AdamW(lr=0.01, weight_decay=0.1)
        t = trainer(model, optimizer=rule, clip_norm=0.5, seed=4)
        history = t.fit(X, y, epochs=8, validation=(X, y), progress=False)
        results.append([*arrays(model.get_parameters()), np.array(history.val_loss)])
    for got, wanted in zip(results[1], results[0], strict=True):
        close(got, wanted, "50 training steps", dtype=dtype)


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_precisions(device: str, kind: str, precision: str) -> None:
    if not device.startswith("cuda"):
        pytest.skip("only on CUDA devices")
    X, y = rows(n=64)
    exact = arrays(trainer(network(kind, device, "float32")).loss_and_grads(X, y)[1])
    model = network(kind, device, "float32")
    t = trainer(model, precision=precision)
    for got, wanted in zip(arrays(t.loss_and_grads(X, y)[1]), exact, strict=True):
        error = np.linalg.norm(got - wanted) / max(np.linalg.norm(wanted), 1e-3)
        assert error < 3 * GRADIENT[precision]
    before = t.evaluate(X, y)["loss"]
    t.fit(X, y, epochs=10, progress=False)
    assert t.evaluate(X, y)["loss"] < before


def test_codes_are_exact_in_half_precision(device: str) -> None:
    if not device.startswith("cuda"):
        pytest.skip("only on CUDA devices")
    X = np.array([[4097.0], [4096.0], [7.0]])
    model = gpumlp.MLP([1, 1], embedding=E(None, categories={0: 5000}, category_size=1), device=device)
    t = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", precision="float16")
    gradient = t.loss_and_grads(X, np.ones(3))[1][-1]["vectors"][:, 0]
    assert np.flatnonzero(gradient).tolist() == [7, 4096, 4097]


STACKED = ["cosine", "cosine of some", "categories", *KINDS[-4:]]


@pytest.mark.parametrize("kind", STACKED)
def test_many_networks_have_what_each_has_alone(device: str, kind: str, dtype: Any) -> None:
    """With rates, widths, scales, bins and dropout of their own; on CUDA in one plan."""
    X, y = rows(n=64)

    def trainers() -> list[gpumlp.Trainer]:
        found = []
        for k, (rate, width) in enumerate([(0.01, 8), (0.02, 12), (0.005, 12)]):
            e = of_member(kind, k)
            model = gpumlp.MLP(
                [5, width, 2], embedding=e, dropout=0.1 * k, dtype=dtype, seed=k, device=device
            )
            model.set_parameters(moved(model.get_parameters(), seed=k))
            rule = gpumlp.AdamW(lr=rate, weight_decay=0.1)
            found.append(trainer(model, optimizer=rule, clip_norm=0.5, seed=k))
        return found

    together, alone = trainers(), trainers()
    histories = gpumlp.fit_many(together, X, y, epochs=5, validation=(X, y), progress=False)
    how = repr(histories).splitlines()[0]
    if device.startswith("cuda"):
        assert how == "3 networks in 1 plan:"
    for a, b in zip(together, alone, strict=True):
        b.fit(X, y, epochs=5, validation=(X, y), progress=False)
        close(np.array(a.history.val_loss), b.history.val_loss, "50 training steps", dtype=dtype)
        for got, wanted in zip(
            arrays(a.model.get_parameters()), arrays(b.model.get_parameters()), strict=True
        ):
            if device.startswith("cuda"):
                close(got, wanted, "50 training steps")
            else:
                np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["periodic", "piecewise"])
def test_many_networks_in_reduced_precision(device: str, kind: str, precision: str) -> None:
    if not device.startswith("cuda"):
        pytest.skip("only on CUDA devices")
    X, y = rows(n=64)
    together, alone = (
        [
            trainer(
                gpumlp.MLP([5, 8, 2], embedding=of_member(kind, k), seed=k, device=device),
                precision=precision,
            )
            for k in range(4)
        ]
        for _ in range(2)
    )
    gpumlp.fit_many(together, X, y, epochs=3, progress=False)
    for a, b in zip(together, alone, strict=True):
        b.fit(X, y, epochs=3, progress=False)
        np.testing.assert_allclose(a.history.loss, b.history.loss, rtol=GRADIENT[precision])
        assert a.history.loss[2] < a.history.loss[0]


@pytest.mark.memory
@pytest.mark.parametrize("kind", STACKED)
def test_members_of_a_plan(backend: Any, kind: str) -> None:
    """A stack's gradients are those of its networks, whose widths and bins differ, on every executor."""
    models = [
        gpumlp.MLP([5, width, 2], "tanh", embedding=of_member(kind, k), dtype="float64", device=backend)
        for k, width in enumerate((8, 12, 9))
    ]
    for k, model in enumerate(models):
        model.set_parameters(moved(model.get_parameters(), seed=k))
    stack = Stack(models)
    for k, model in enumerate(models):
        stack.put(k, model.flat, stack.flat)
    X, n = rows(n=24)[0], 12
    gradients = []
    for each in (*models, stack):
        space = Workspace(each, n, training=True)
        grads = backend.zeros(each.flat.shape, each.dtype)
        steps = Steps(backend, (), each.dtype, 1, 24, each.members)
        steps.order[...] = np.arange(24)[::-1]
        steps.send()
        d = np.random.default_rng(3).normal(size=(n, 2))
        space.d[-1][...] = backend.asarray(np.broadcast_to(d, space.d[-1].shape))
        ops = [gather(space, n, backend.asarray(X), steps.index, n), *space.forward(n)]
        backend.record([*ops, *space.backward(n, grads, None)], steps).run()
        gradients.append(grads)
    for k, (model, alone) in enumerate(zip(models, gradients[:-1], strict=True)):
        own = backend.zeros(model.flat_size, model.dtype)
        stack.get(k, own, gradients[-1])
        assert float(abs(own[model.embedded.start :]).max()) > 1e-3
        close(backend.to_numpy(own), backend.to_numpy(alone), "small plan")
        assert int((gradients[-1][k] != 0).sum()) == int((own != 0).sum())  # all else is padding


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("cosine", 3 + 2),
        ("periodic of one", 8 + 1),
        ("piecewise", 4 + 2),
        ("categories", 1 + 2 + 1),
        ("nothing", 1),
    ],
)
def test_operations_of_a_step(device: str, kind: str, more: int) -> None:
    """Few, and as many whatever the number of columns is; those for the columns that stay among them."""
    counts = []
    for embedding in (EMBEDDINGS[kind], None):
        model = gpumlp.MLP([5, 8, 2], embedding=embedding, device=device)
        space = Workspace(model, 16, training=True)
        counts.append(
            len(space.forward(16)) + len(space.backward(16, model.backend.zeros(model.flat_size, "f4"), 0))
        )
    assert counts[0] - counts[1] == more


@pytest.mark.parametrize("kind", ["cosine", "periodic"])
def test_streamed_rows(device: str, kind: str) -> None:
    X, y = rows(n=200)
    losses = []
    for streaming in (False, True):
        t = trainer(network(kind, device))
        losses.append(t.fit(X, y, epochs=3, validation=0.2, streaming=streaming, progress=False).val_loss)
    np.testing.assert_allclose(losses[0], losses[1], rtol=RELATIVE["run"])


def test_one_row_and_many(device: str) -> None:
    """Predictions do not depend on how many rows are asked for at a time."""
    model, (X, _) = network("cosine", device), rows(n=9000)
    whole = model.forward(X)
    assert whole.shape == (9000, 2)
    for part in (slice(0, 1), slice(5, 8), slice(4000, 4200)):
        np.testing.assert_allclose(
            model.forward(X[part]), whole[part], rtol=RELATIVE["few roundings"], atol=1e-12
        )


@pytest.mark.parametrize("given", ["int8", "uint8", "int32", "float64"])
def test_rows_of_other_types(device: str, given: str) -> None:
    X = np.random.default_rng(0).integers(0, 4, (40, 5))
    for kind in ("cosine", "periodic", "piecewise"):
        losses = []
        for source in (X.astype(given), X.astype(np.float32)):
            t = trainer(network(kind, device, "float32"))
            losses.append(t.fit(source, X[:, :2] * 1.0, epochs=2, progress=False).loss)
        np.testing.assert_allclose(losses[0], losses[1], rtol=RELATIVE["float32 roundings"])
