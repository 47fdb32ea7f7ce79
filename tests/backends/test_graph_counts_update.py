"""What `update` on lists asks of the device, counted on a simulated one; and updates inside graphs."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import cuda_problem
from gpumlp.schedules import Cosine

simgpu = pytest.importorskip("simgpu", reason="counting needs the simulated device")
if not simgpu.active() or cuda_problem():
    pytest.skip("counting needs the simulated device", allow_module_level=True)

import cupy  # noqa: E402

SHAPES = [(40, 30), (30,), (30, 10), (10,), (3,)]
DECAY = [len(shape) == 2 for shape in SHAPES]
FULL: dict[str, Any] = {"clip_norm": 0.5, "scale": 8.0, "decay": DECAY, "zero": True}


def arrays(seed: int, dtype: Any = "f4") -> list[Any]:
    rng = np.random.default_rng(seed)
    return [cupy.asarray(rng.normal(size=shape).astype(dtype)) for shape in SHAPES]


def assert_launches(counts: dict[str, Any], launches: int) -> None:
    assert counts["kernel_launches"] == launches
    copies = ("memcpy_h2d_count", "memcpy_d2h_count", "memcpy_d2d_count", "memset_count", "mallocs")
    for name in (*copies, "stream_syncs", "device_syncs", "event_syncs", "blocking_copies"):
        assert counts[name] == 0, name
    assert not counts["library_calls"]


@pytest.mark.parametrize(
    ("options", "launches"),
    [
        ({}, 1),
        ({"zero": True, "decay": DECAY, "lr": Cosine(steps=50)}, 1),
        ({"clip_norm": 0.5}, 3),
        ({"scale": 8.0}, 3),
        (FULL, 3),
    ],
    ids=["plain", "masked", "clipped", "scaled", "all"],
)
@pytest.mark.parametrize("types", ["f4 f4", "f4 f2", "f2 f2"])
def test_a_list(types: str, options: dict, launches: int) -> None:
    p_type, g_type = types.split()
    params, grads, opt = arrays(0, p_type), arrays(1, g_type), gpumlp.AdamW(l2=0.1)
    for _ in range(2):  # the first call makes what later ones use
        opt.update(params, grads, **options)
    simgpu.reset()
    opt.update(params, grads, **options)
    assert_launches(simgpu.counters(), launches)


def test_other_gradients_cost_one_copy() -> None:
    """Of the table of addresses."""
    params, opt = arrays(0), gpumlp.Adam()
    keep = [arrays(n) for n in range(4)]
    for grads in keep[:3]:
        opt.update(params, grads, clip_norm=1.0)
    simgpu.reset()
    opt.update(params, keep[3], clip_norm=1.0)
    counts = simgpu.counters()
    assert counts["memcpy_h2d_count"] == 1 and counts["kernel_launches"] == 3 and counts["stream_syncs"] == 0


def test_a_learning_rate_that_is_assigned_costs_one_copy_where_the_device_counts() -> None:
    params, grads, opt = arrays(0), arrays(1), gpumlp.Adam()
    for step in range(4):
        simgpu.reset()
        opt.lr = 0.01 * (step + 1)
        opt.update(params, grads, scale=1.0)
    counts = simgpu.counters()
    assert counts["memcpy_h2d_count"] == 1 and counts["kernel_launches"] == 3 and counts["mallocs"] == 0


def test_what_shares_memory_is_updated_by_launches_of_its_own() -> None:
    """Blocks of one launch have no order; and what cannot be read in vectors of four is copied."""
    params, grads, opt = arrays(0), arrays(1), gpumlp.Adam()
    for _ in range(2):
        simgpu.reset()
        opt.update([params[0], params[0][:20]], [grads[0], grads[0][:20]], clip_norm=1.0)
    assert simgpu.counters()["kernels"]["gpumlp_adam_clip"] == 2
    strided, opt = [p[..., 1:] for p in params], gpumlp.Adam()
    for _ in range(2):
        simgpu.reset()
        opt.update(strided, [g[..., 1:] for g in grads], clip_norm=1.0)
    counts = simgpu.counters()
    assert counts["kernels"]["gpumlp_adam_clip"] == 1 and counts["stream_syncs"] == 0


def test_neither_parameters_nor_gradients_are_kept_alive() -> None:
    params, grads, opt = arrays(0), arrays(1), gpumlp.Adam()
    for _ in range(2):
        opt.update(params, grads, **FULL)
    watched = [weakref.ref(a) for a in (*params, *grads)]
    del params, grads
    gc.collect()
    assert [w() for w in watched] == [None] * len(watched)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "schedule": {"lr": Cosine(steps=8)},
    "clipped": {"clip_norm": 0.5},
    "all": FULL,
}


@pytest.mark.parametrize(
    ("rule", "case", "kind"),
    [
        ("Adam", "all", "f4"),
        ("Adam", "schedule", "f8"),
        ("NAdam", "plain", "f4"),
        ("RAdam", "clipped", "f4"),
        ("SGD", "all", "f2"),
    ],
)
def test_replays_are_updates(rule: str, case: str, kind: str) -> None:
    """12 replays of a captured update, to the bit; a gradient that is not finite is skipped in both."""
    make = getattr(gpumlp, rule)
    options = {"momentum": 0.9, "dampening": 0.5} if rule == "SGD" else {}
    results = []
    for replayed in (False, True):
        params, grads, opt = arrays(0, kind), arrays(1, kind), make(lr=0.01, l2=0.1, average=0.9, **options)
        opt.capturable = True
        stream = cupy.cuda.Stream(non_blocking=True)

        def fill(step: int, grads: Any = grads, params: Any = params) -> None:
            for g, p in zip(grads, params, strict=True):
                g[...] = p * (step + 1)
            if step == 5 and case == "all":
                grads[2][1, 1] = np.inf

        with stream:
            fill(0)
            opt.update(params, grads, **CASES[case])
            if replayed:
                stream.begin_capture()
                opt.update(params, grads, **CASES[case])
                graph = stream.end_capture()
            for step in range(1, 13):
                fill(step)
                if replayed:
                    simgpu.reset()
                    graph.launch()
                    counts = simgpu.counters()
                    assert counts["graph_kernels"] <= 3 and not counts["graph_memcpys"]
                else:
                    opt.update(params, grads, **CASES[case])
        stream.synchronize()
        results.append([p.get() for p in params])
        assert opt.t == (12 if case == "all" else 13)
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_captured_equals_what_the_host_counts() -> None:
    """The tables hold what a plain optimiser computes for each step, also far from the first one."""
    params, grads = [cupy.zeros(4, "f8")], [cupy.arange(4.0)]
    counted, plain = (gpumlp.Adam(lr=0.01, betas=(0.9, 0.99)) for _ in range(2))
    counted.t = plain.t = 3000
    copies = [p.copy() for p in params]
    counted.capturable = True
    for t in range(3000, 3004):
        counted.update(params, grads)
        plain.update(copies, grads)
        assert counted.t == plain.t == t + 1
    for p, q in zip(params, copies, strict=True):
        np.testing.assert_allclose(p.get(), q.get(), rtol=1e-13)


def test_what_cannot_be_captured() -> None:
    params, grads, opt = arrays(0), arrays(1), gpumlp.Adam(lr=0.1)
    stream = cupy.cuda.Stream(non_blocking=True)

    def capture(message: str, error: type = RuntimeError, **options: Any) -> None:
        before = [p.get() for p in params]
        with stream:
            stream.begin_capture()
            try:
                with pytest.raises(error, match=message):
                    opt.update(params, grads, **options)
            finally:
                stream.end_capture()
        assert all((p.get() == b).all() for p, b in zip(params, before, strict=True))

    capture("set `capturable = True`")
    opt.capturable = True
    capture("call it once with the same arrays, options and hyper-parameters before the capture")
    with stream:
        opt.update(params, grads)
    capture("call it once with the same arrays", clip_norm=1.0)
    grads[0] = grads[0].copy()
    capture("call it once with the same arrays")
    opt.lr = 0.2
    with stream:
        opt.update(params, grads)
    opt.betas = (0.5, 0.9)
    capture("call it once with the same arrays")
    grads[0] = cupy.ones((30, 40), "f4").T
    with stream:
        opt.update(params, grads)
    capture(r"grads\[0\] cannot be used in a captured update: expected a C-contiguous", ValueError)
    with pytest.raises(ValueError, match="capturable=2; expected True or False"):
        opt.capturable = 2
