"""Too little memory, and graphs that cannot be had: said in words, and nothing is lost."""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE
from trainers import trainer

import gpumlp


def network(device: Any = "cuda") -> gpumlp.MLP:
    return gpumlp.MLP([64, 24, 10], device=device, seed=5)


# ---- memory -----------------------------------------------
@pytest.fixture
def pool(cuda: Any) -> Iterator[Any]:
    """CuPy's memory pool, emptied; a limit is taken off after the test."""
    import cupy

    gpumlp.free_memory()
    pool = cupy.get_default_memory_pool()
    yield pool
    pool.set_limit(size=0)


def test_a_network_that_does_not_fit(cuda: Any) -> None:
    with pytest.raises(MemoryError, match=r"cuda:0 is out of memory: .* MiB.* smaller batch_size, network"):
        gpumlp.MLP([2**20, 2**20, 2], device="cuda")


def test_rows_that_do_not_fit_leave_model_and_trainer_usable(pool: Any, digits: Any) -> None:
    X, y = digits
    t, undisturbed = trainer(network()), trainer(network())
    for each in (t, undisturbed):
        each.fit(X, y, epochs=1)
    before = t.model.get_parameters()
    many = np.zeros((400_000, 64), np.float32)
    pool.set_limit(size=pool.used_bytes() + 40 * 2**20)
    with pytest.raises(MemoryError, match="cuda:0 is out of memory: an array of shape") as error:
        t.fit(many, np.arange(400_000) % 10, epochs=1, streaming=False)
    assert "free_memory()" in str(error.value)
    for a, b in zip(before, t.model.get_parameters(), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    pool.set_limit(size=0)
    for each in (t, undisturbed):
        each.fit(X, y, epochs=1)
    np.testing.assert_array_equal(t.model.forward(X), undisturbed.model.forward(X))


def test_an_impossible_batch_says_what_is_needed(pool: Any, digits: Any) -> None:
    t = trainer(network(), batch_size=2**20, precision="bfloat16")
    pool.set_limit(size=pool.used_bytes() + 8 * 2**20)
    X = np.zeros((2**20, 64), np.float32)
    with pytest.raises(MemoryError, match=r"training needs about .* MiB on cuda:0 .*Lower batch_size"):
        t.fit(X, np.arange(2**20) % 10, epochs=1)


def test_free_memory_gives_it_back(pool: Any, cuda: Any) -> None:
    array = cuda.zeros(2**22, np.uint8)
    del array
    assert pool.free_bytes() >= 2**22
    gpumlp.free_memory()
    assert pool.free_bytes() < 2**22


# ---- graphs -----------------------------------------------
def results(device: Any, digits: Any, **options: Any) -> list[np.ndarray]:
    """Parameters and figures of a training with all that can be captured."""
    X, y = digits
    t = trainer(
        gpumlp.MLP([64, 24, 10], "gelu", device=device, seed=5, dropout=0.2), clip_norm=1.0, **options
    )
    history = t.fit(X, y, epochs=2, validation=(X[:333], y[:333]))
    return [t.model.backend.to_numpy(t.model.flat), np.array([history.loss, history.val_loss])]


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16", "bfloat16"])
def test_eager_steps_give_the_same_bits(cuda: Any, digits: Any, precision: str) -> None:
    from gpumlp.backends.cuda.backend import CupyBackend

    graph, eager = CupyBackend(0, graph=True), CupyBackend(0, graph=False)
    for a, b in zip(*(results(d, digits, precision=precision) for d in (graph, eager)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert graph.graph and not eager.graph


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16", "bfloat16"])
def test_branches_give_the_same_bits(cuda: Any, digits: Any, precision: str) -> None:
    from gpumlp.backends.cuda.backend import CupyBackend

    two, one = (CupyBackend(0, graph=True, branches=branches) for branches in (True, False))
    for a, b in zip(*(results(d, digits, precision=precision) for d in (two, one)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert two.graph and one.graph


@pytest.mark.parametrize(
    ("options", "nodes"), [({}, 10), ({"clip_norm": 1.0}, 12), ({"precision": "float16"}, 12)]
)
def test_a_step_begins_and_ends_in_one_node(
    cuda: Any, digits: Any, monkeypatch: pytest.MonkeyPatch, options: Any, nodes: int
) -> None:
    """The gather comes before all else, and the update after both branches."""
    graphs, usual = [], cuda.record

    def record(ops: Any, steps: Any) -> Any:
        replay = usual(ops, steps)
        graphs.append((len(ops), replay.graph))
        return replay

    monkeypatch.setattr(cuda, "record", record)
    trainer(network(), **options).step(digits[0][:32], digits[1][:32])
    graph = max(graphs, key=lambda each: each[0])[1]  # the step; the other one sums
    if graph is None:
        pytest.skip("CUDA graphs are turned off")
    edges = re.findall(r"(\w+)\W*->\W*(\w+)", graph.debug_dot_str())
    sources, targets = ({edge[side] for edge in edges} for side in (0, 1))
    assert len(sources | targets) >= nodes  # cuBLAS may take more than one for a product
    assert len(sources - targets) == len(targets - sources) == 1
    assert len(edges) >= len(sources | targets)  # one branch has one less: there is a fork and a join


def test_each_branch_has_a_cublas_workspace_of_its_own(cuda: Any) -> None:
    """Products that run side by side must not share one."""
    from gpumlp.backends.base import Steps
    from gpumlp.backends.cuda.backend import CupyBackend
    from gpumlp.backends.operations import Gemm

    pool, taken, kept = cuda.xp.get_default_memory_pool(), [], []
    for branches in (False, True):
        gc.collect()  # what other tests left is not freed in between
        backend = CupyBackend(0, graph=True, branches=branches)
        a, b, c = (backend.zeros((4, 4), np.float32) for _ in range(3))
        steps = Steps(backend)
        before = pool.used_bytes()
        kept.append(backend.record([Gemm(a, a, b), Gemm(a, a, c)], steps))
        taken.append(pool.used_bytes() - before)
    assert taken[1] == 2 * taken[0] > 0


def test_the_environment_turns_graphs_off(
    cuda: Any, simgpu: Any, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpumlp.backends.cuda.backend import CupyBackend

    monkeypatch.setenv("GPUMLP_GRAPH", "0")
    with simgpu.watch() as c:
        results(CupyBackend(0), digits)
    assert c["graph_launches"] == 0 and c["kernels"]["gpumlp_adam_clip"] == 1 + 2 * 18  # one to load it


def test_ctrl_c_while_a_graph_is_captured(cuda: Any, digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two branches; the next call captures again."""
    from gpumlp.backends.cuda import backend as module
    from gpumlp.backends.cuda.backend import CupyBackend

    wanted = results(CupyBackend(0, graph=True), digits)
    real, backend = module.captured, CupyBackend(0, graph=True)

    def pressed() -> None:
        raise KeyboardInterrupt

    def interrupted(calls: Any, plan: Any, streams: Any) -> Any:
        beside = [place.op for place in plan if place.side]
        return real([pressed if n in beside[-1:] else c for n, c in enumerate(calls)], plan, streams)

    with monkeypatch.context() as patch:
        patch.setattr(module, "captured", interrupted)
        with pytest.raises(KeyboardInterrupt):
            results(backend, digits)
    for a, b in zip(wanted, results(backend, digits), strict=True):
        np.testing.assert_array_equal(a, b)
    assert backend.graph


def test_failed_capture_says_so_and_gives_the_same_bits(
    cuda: Any, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpumlp.backends.cuda import backend as module
    from gpumlp.backends.cuda.backend import CupyBackend

    wanted = results(CupyBackend(0, graph=True), digits)
    real, backend = module.captured, CupyBackend(0, graph=True)

    def broken(calls: Any, plan: Any, streams: Any) -> Any:
        def fails() -> None:
            raise RuntimeError("operation not permitted when stream is capturing")

        return real([*calls[:-1], fails], plan, streams)

    monkeypatch.setattr(module, "captured", broken)
    with pytest.warns(RuntimeWarning, match="cuda:0: CUDA graphs are off.*not permitted") as caught:
        got = results(backend, digits)
    assert len([w for w in caught if "CUDA graphs" in str(w.message)]) == 1
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results(backend, digits)  # once is enough


def test_without_a_cublas_of_our_own_rows_of_the_host_are_taken_too(
    cuda: Any, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on ROCm."""
    import gpumlp.backends.cuda.backend as module

    def missing() -> None:
        raise OSError("no such library")

    monkeypatch.setattr(module, "load_library", missing)
    backend = module.CupyBackend(0)
    t = trainer(gpumlp.MLP([64, 24, 10], device=backend, seed=5))
    with pytest.warns(RuntimeWarning, match="cuBLAS cannot be called directly"):
        history = t.fit(*digits, epochs=2, validation=0.2)
    expected = trainer(network()).fit(*digits, epochs=2, validation=0.2)
    np.testing.assert_allclose(history.val_loss, expected.val_loss, rtol=RELATIVE["float32 run"])
    assert t.evaluate(*digits)["accuracy"] > 0.5


def test_wide_rows_that_fit_are_not_refused(pool: Any) -> None:
    """Nothing is set aside for validation rows that there are not, or for more rows than there are."""
    X, y = np.zeros((512, 5000), np.float32), np.arange(512) % 2
    t = trainer(gpumlp.MLP([5000, 16, 2], device="cuda"), batch_size=32)
    pool.set_limit(size=pool.used_bytes() + 40 * 2**20)
    t.fit(X, y, epochs=1)
    assert set(t.evaluate(X, y)) == {"loss", "accuracy"}
    assert t.model.predict(X).shape == (512,)
