"""What an epoch asks of the device, counted on a simulated one: no launch, copy or wait that need not be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import cuda_problem

simgpu = pytest.importorskip("simgpu", reason="counting needs the simulated device")
if not simgpu.active() or cuda_problem():
    pytest.skip("counting needs the simulated device", allow_module_level=True)

if not gpumlp.get_backend("cuda").graph:
    pytest.skip("CUDA graphs are turned off", allow_module_level=True)

NETWORKS = {
    "deep": ([784, 256, 128, 10], {}, {}),
    "linear": ([12, 3], {}, {}),
    "dropout": ([8, 16, 16, 2], {"activation": "gelu", "dropout": 0.2}, {"l1": 1e-5, "l2": 1e-4}),
}
OPTIMIZERS = {
    "momentum": lambda: gpumlp.SGD(lr=0.01, momentum=0.9),
    "rmsprop": lambda: gpumlp.RMSProp(lr=1e-3),
    "adamw": lambda: gpumlp.AdamW(lr=1e-3),
}


def epochs(
    sizes: list[int], model: dict[str, Any], trainer: dict[str, Any], rows: int, batch: int, **fit: Any
) -> tuple[list[dict[str, Any]], list[int]]:
    """Counters and pool bytes of each epoch after the first."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((rows, sizes[0]), np.float32), rng.integers(0, sizes[-1], rows)
    counts, pool = [], []
    memory = gpumlp.get_backend("cuda").xp.get_default_memory_pool()

    def after(_trainer: Any, _history: Any) -> None:
        counts.append(simgpu.counters())
        pool.append(memory.total_bytes())
        simgpu.reset()

    network = gpumlp.MLP(sizes, device="cuda", **model)
    loop = gpumlp.Trainer(
        network, loss="softmax_cross_entropy", batch_size=batch, callbacks=[after], **trainer
    )
    loop.fit(X, y, epochs=4, progress=False, **fit)
    return counts[1:], pool[1:]


SUMS = 4  #: nodes of the graph at an epoch's end: sum of the losses, parameters that are not finite


def assert_minimal(counts: dict[str, Any], graphs: int) -> None:
    assert counts["graph_launches"] == graphs + 1  # one for the sums over the epoch
    assert counts["kernel_launches"] == 0
    assert counts["memcpy_h2d_count"] <= 1
    assert counts["memcpy_d2h_count"] <= 1
    assert counts["stream_syncs"] + counts["device_syncs"] + counts["event_syncs"] <= 1
    for name in ("mallocs", "memset_count", "memcpy_d2d_count", "blocking_copies", "graphs_instantiated"):
        assert counts[name] == 0, name
    assert not counts["library_calls"]


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_an_epoch_of_full_batches(network: str, rule: str) -> None:
    sizes, model, trainer = NETWORKS[network]
    counts, pool = epochs(sizes, model, {**trainer, "optimizer": OPTIMIZERS[rule]()}, rows=192, batch=32)
    for each in counts:
        assert_minimal(each, graphs=6)
        nodes = each["graph_kernels"] + sum(each["graph_library_calls"].values())
        nodes += each["graph_memcpys"] + each["graph_memsets"]
        assert nodes <= 6 * 5 * (len(sizes) - 1) + SUMS
        updates = [
            n
            for name, n in each["graph_kernels_by_name"].items()
            if name.startswith(f"gpumlp_{OPTIMIZERS[rule]().name}")
        ]
        assert updates == [6]  # one launch per step for all layers
    assert len(set(pool)) == 1


def test_the_short_last_batch_has_a_graph_of_its_own() -> None:
    counts, pool = epochs(*NETWORKS["deep"][:2], {"optimizer": gpumlp.Adam()}, rows=100, batch=32)
    for each in counts:
        assert_minimal(each, graphs=4)
    assert len(set(pool)) == 1


def test_clipping_costs_two_nodes() -> None:
    trainer = {"optimizer": gpumlp.Adam(), "clip_norm": 1.0, "schedule": "cosine"}
    counts, _ = epochs([20, 16, 16, 3], {}, trainer, rows=64, batch=32)
    for each in counts:
        assert_minimal(each, graphs=2)
        assert each["graph_kernels"] + sum(each["graph_library_calls"].values()) == 2 * (5 * 3 + 2) + SUMS


def test_evaluation_adds_its_graphs_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    held = rng.standard_normal((40, 8), np.float32), rng.integers(0, 2, 40)
    counts, pool = epochs([8, 16, 2], {}, {"optimizer": "adam"}, rows=64, batch=32, validation=held)
    for each in counts:
        assert_minimal(each, graphs=2 + 2)  # one chunk of rows, and the sums
    assert len(set(pool)) == 1
