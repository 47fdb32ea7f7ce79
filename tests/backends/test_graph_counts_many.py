"""What an epoch of many networks in one plan asks of the device, counted on a simulated one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.backends import cuda_problem
from gpumlp.training import groups, stacked
from gpumlp.training.progress import Progress

simgpu = pytest.importorskip("simgpu", reason="counting needs the simulated device")
if not simgpu.active() or cuda_problem():
    pytest.skip("counting needs the simulated device", allow_module_level=True)

if not gpumlp.get_backend("cuda").graph:
    pytest.skip("CUDA graphs are turned off", allow_module_level=True)

SIZES = [12, 24, 16, 3]
STEPS = 5  # an epoch of 150 rows in batches of 32


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 12), np.float32)
    X[:, 2] = np.arange(150) % 5  # codes, for embeddings
    return X, rng.integers(0, 3, 150)


def trainers(n: int, sizes: Any = None, **more: Any) -> list[gpumlp.Trainer]:
    return [
        gpumlp.Trainer(
            gpumlp.MLP(sizes[k] if sizes else SIZES, "tanh", dropout=0.1 * (k % 2), seed=k, device="cuda"),
            loss="softmax_cross_entropy",
            optimizer=gpumlp.AdamW(lr=0.001 * (k + 1), weight_decay=0.01 * (k % 3)),
            batch_size=32,
            clip_norm=1.0 if k % 2 else None,
            seed=k,
            **more,
        )
        for k in range(n)
    ]


def epochs(some: list[gpumlp.Trainer], n: int = 4, **fit: Any) -> list[dict[str, Any]]:
    """Counters of each epoch but the first and the last: between two calls of the first one's schedule."""
    counts: list[dict[str, Any]] = []

    def schedule(t: np.ndarray, total: int) -> np.ndarray:
        counts.append(simgpu.counters())
        simgpu.reset()
        return np.ones(len(t))

    some[0].schedule = schedule
    X, y = data()
    gpumlp.fit_many(some, X, y, epochs=n, progress=False, **fit)
    return counts[2:]


def nodes(counts: dict[str, Any]) -> int:
    within = counts["graph_kernels"] + sum(counts["graph_library_calls"].values())
    return within + counts["graph_memcpys"] + counts["graph_memsets"]


def embedding(kind: str, k: int) -> gpumlp.Embedding:
    if kind == "piecewise":
        return gpumlp.Embedding.piecewise(data()[0] + k, 4, bins=3 + k % 3, categories={2: 5})
    return gpumlp.Embedding(kind, 4, scale=0.1 * (k + 1), frequencies=3, categories={2: 5})


@pytest.mark.parametrize("kind", ["cosine", "periodic", "piecewise", "muon"])
def test_nodes_of_other_steps_do_not_depend_on_the_number_of_networks(kind: str) -> None:
    seen = []
    for n in (2, 24):
        some = trainers(n)
        for k, one in enumerate(some):
            if kind == "muon":
                one.optimizer = gpumlp.Muon(lr=0.001 * (k + 1))
            else:
                one.model = gpumlp.MLP(SIZES, embedding=embedding(kind, k), seed=k, device="cuda")
        counts = epochs(some)[-1]
        assert counts["kernel_launches"] == 0 and not counts["library_calls"]
        seen.append((nodes(counts), counts["graph_launches"], sum(counts["graph_library_calls"].values())))
    assert len(set(seen)) == 1 and seen[0][1] == STEPS + 1


@pytest.mark.parametrize("validation", [None, 0.2])
def test_nodes_do_not_depend_on_the_number_of_networks(validation: float | None) -> None:
    seen = []
    for n in (2, 24):
        for counts in epochs(trainers(n), validation=validation):
            assert counts["kernel_launches"] == 0 and not counts["library_calls"]
            assert counts["memcpy_h2d_count"] == counts["memcpy_d2h_count"] == 1
            assert counts["stream_syncs"] + counts["device_syncs"] + counts["event_syncs"] <= 1
            for name in ("mallocs", "memset_count", "memcpy_d2d_count", "blocking_copies"):
                assert counts[name] == 0, name
            assert counts["graphs_instantiated"] == 0
            seen.append((nodes(counts), counts["graph_launches"]))
    assert len(set(seen)) == 1
    rows = 150 if validation is None else 120
    steps, evaluated = -(-rows // 32), 2 * (validation is not None)
    assert seen[0][1] == steps + 1 + evaluated


def test_as_many_nodes_as_one_network() -> None:
    """Clipping, decay and dropout of some are launches for all; nothing else is added."""
    alone = trainers(4)[1]
    each: list[dict[str, Any]] = []

    def count(one: gpumlp.Trainer, history: gpumlp.History) -> None:
        each.append(simgpu.counters())
        simgpu.reset()

    alone.callbacks = [count]
    alone.fit(*data(), epochs=3, progress=False)
    assert {nodes(c) for c in epochs(trainers(4))} == {nodes(each[-1])}


def test_rows_are_sent_once() -> None:
    X, y = data()
    X = np.repeat(X, 40, axis=0)
    y = np.repeat(y, 40)
    sent = []
    for n in (2, 16):
        some = trainers(n)
        simgpu.reset()
        rows = [np.arange(k, k + 5000) for k in range(n)]
        gpumlp.fit_many(some, X, y, epochs=1, rows=rows, progress=False)
        sent.append(simgpu.counters()["memcpy_h2d_bytes"])
    orders = 14 * 5000 * 4
    assert sent[1] - sent[0] < orders + X.nbytes / 2


def test_shapes_share_a_plan_where_padding_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text beside the progress bar says how many plans there are."""
    texts: list[str] = []
    monkeypatch.setattr(Progress, "shown", True)
    monkeypatch.setattr(Progress, "show", lambda self, epochs, text: texts.append(text))
    shapes = [[12, 24 - k, 16, 3] for k in range(6)] + [[12, 30, 3]] * 2
    for cost, plans in ((groups.PLAN, 2), (0, 7)):  # at 0, padding never pays
        monkeypatch.setattr(groups, "PLAN", cost)
        gpumlp.fit_many(trainers(8, shapes), *data(), epochs=2, progress=True)
        assert texts[-1] == f"0 of 8 networks in {plans} plans"


def test_waves_of_as_many_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in the progress line; the results do not depend on it."""
    texts: list[str] = []
    monkeypatch.setattr(Progress, "shown", True)
    monkeypatch.setattr(Progress, "show", lambda self, epochs, text: texts.append(text))
    monkeypatch.setattr(groups, "usable_bytes", lambda backend: 200_000)
    alone, together = trainers(7), trainers(7)
    for one in alone:
        one.fit(*data(), epochs=2, progress=False)
    gpumlp.fit_many(together, *data(), epochs=2, progress=True)
    assert "networks in 1 plan, wave" in texts[-1] and "memory holds no more" in texts[-1]
    for one, other in zip(alone, together, strict=True):
        host = one.model.backend.to_numpy
        close(host(one.model.flat), host(other.model.flat), "50 training steps")


def test_memory_that_runs_out_halves_the_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Scarce(stacked.Stack):
        def __init__(self, networks: Any) -> None:
            sizes.append(len(networks))
            if len(networks) > 2:
                raise MemoryError("no room")
            super().__init__(networks)

    monkeypatch.setattr(stacked, "Stack", Scarce)
    alone, together = trainers(5), trainers(5)
    for one in alone:
        one.fit(*data(), epochs=2, progress=False)
    gpumlp.fit_many(together, *data(), epochs=2, progress=False)
    assert sizes == [5, 3, 2, 1, 2]
    for one, other in zip(alone, together, strict=True):
        host = one.model.backend.to_numpy
        close(host(one.model.flat), host(other.model.flat), "50 training steps")
