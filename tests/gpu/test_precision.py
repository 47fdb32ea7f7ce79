"""`Trainer(precision=...)`: how products are computed, what is stored in which type, and the results."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from tolerances import GRADIENT
from trainers import trainer

import gpumlp
from gpumlp.callbacks import EverySteps
from gpumlp.plans import PRECISIONS, Precision, Workspace
from gpumlp.plans.precision import GROWTH_STEPS
from gpumlp.rows import check_rows
from gpumlp.training.epochs import ResidentEpochs

HALF = ["float16", "bfloat16"]


def model(**options: Any) -> gpumlp.MLP:
    # smooth ones: where relu changes sides by a rounding, the gradient jumps
    settings = {"activation": ["tanh", "gelu"], "device": "cuda", "seed": 3}
    return gpumlp.MLP([64, 40, 24, 10], **{**settings, **options})


@pytest.fixture
def products(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Counts calls of cuBLAS: name, types of a, b and c, type of computation."""
    from gpumlp.backends.cuda import cublas

    library, seen = cublas.load_library(), Counter()

    def spy(name: str, key: Any) -> None:
        real = getattr(library, name)

        def call(*arguments: Any) -> int:
            seen[(name, *key(arguments))] += 1
            real.argtypes = call.argtypes  # type: ignore[attr-defined]
            return real(*arguments)

        call.__name__ = name
        setattr(library, name, call)

    for name in ("cublasSgemm_v2", "cublasDgemm_v2"):
        spy(name, lambda _: ())
    spy("cublasGemmEx", lambda a: (a[8], a[11], a[15], a[17]))
    monkeypatch.setattr(cublas, "load_library", lambda: library)
    monkeypatch.setattr(gpumlp.backends, "made", {})  # a new executor, with this library
    return seen


# ---- what is asked of cuBLAS -----------------------------------------------
@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", {("cublasSgemm_v2",): 8}),
        ("tf32", {("cublasGemmEx", 0, 0, 0, 77): 8}),
        ("float16", {("cublasGemmEx", 2, 2, 2, 68): 5, ("cublasGemmEx", 2, 2, 0, 68): 3}),
        ("bfloat16", {("cublasGemmEx", 14, 14, 14, 68): 5, ("cublasGemmEx", 14, 14, 0, 68): 3}),
    ],
)
def test_products_of_a_step(
    products: Counter, digits: Any, precision: str, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = digits
    t = trainer(model(), precision=precision)
    monkeypatch.setattr(t.model.backend, "graph", False)
    t.step(X[:32], y[:32])  # each product is run once to load its kernel
    assert products == {call: 2 * n for call, n in expected.items()}


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_evaluation_is_in_single_precision(products: Counter, digits: Any, precision: str) -> None:
    t = trainer(model(), precision=precision)
    t.evaluate(*digits)
    assert set(products) == {("cublasSgemm_v2",)}


@pytest.mark.parametrize("precision", ["tf32", *HALF])
def test_precision_needs_cuda_and_float32(precision: str) -> None:
    with pytest.raises(ValueError, match=f"precision='{precision}' needs device='cuda'; the model is on cpu"):
        trainer(model(device="numpy"), precision=precision)


@pytest.mark.parametrize("precision", ["tf32", *HALF])
def test_precision_needs_a_float32_model(cuda: Any, precision: str) -> None:
    with pytest.raises(ValueError, match="needs a model of dtype 'float32'; this one is float64"):
        trainer(model(dtype="float64"), precision=precision)


def test_bfloat16_needs_a_recent_gpu(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "info", lambda: {"compute capability": "7.5"})
    with pytest.raises(ValueError, match=r"compute capability 8.0 or later, this one has 7.5; use .*float16"):
        trainer(model(), precision="bfloat16")
    trainer(model(), precision="float16")


def test_moving_a_model_away_is_refused_at_the_next_fit(cuda: Any, digits: Any) -> None:
    t = trainer(model(), precision="tf32")
    t.model.to("numpy")
    for _ in range(2):
        with pytest.raises(ValueError, match="needs device='cuda'"):
            t.fit(*digits, epochs=1)
    t.model.to("cuda")
    t.fit(*digits, epochs=1)


@pytest.mark.parametrize("precision", ["fp16", "double", None, 16])
def test_unknown_precision(precision: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown precision .* Known: bfloat16, float16, float32, tf32"):
        trainer(model(device="numpy"), precision=precision)


def test_float32_means_the_models_dtype() -> None:
    assert trainer(model(device="numpy", dtype="float64"), precision="float32").precision == "float32"


# ---- what is stored -----------------------------------------------
@pytest.mark.parametrize("precision", HALF)
def test_types_and_sizes_of_buffers(cuda: Any, precision: str) -> None:
    network = model()
    precise = Precision(network, precision)
    assert precise.half.dtype == PRECISIONS[precision] and precise.half.nbytes == 2 * network.flat_size
    space = Workspace(network, 16, True, precise)
    buffers = [*space.full, *space.a, *space.z, *space.d]
    assert all(b.dtype == PRECISIONS[precision] for b in buffers)
    assert all(b.strides[0] % 16 == 0 and b.data.ptr % 16 == 0 for b in buffers)
    assert Workspace(network, 16, True).z[-1].dtype == np.float32


@pytest.mark.parametrize(("precision", "narrowest"), [("tf32", 4), *((name, 8) for name in HALF)])
def test_products_have_aligned_inner_dimensions(cuda: Any, precision: str, narrowest: int) -> None:
    """And what they are filled up with stays zero, in the activations and in all arrays of the update."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 3)), rng.integers(0, 3, 90)
    network = gpumlp.MLP([3, 20, 5, 3], "tanh", device=cuda, dropout=0.1)
    t = gpumlp.Trainer(
        network, loss="softmax_cross_entropy", optimizer="adam", l1=1e-3, batch_size=32, precision=precision
    )
    t.fit(X, y, epochs=3, progress=False)
    space = ResidentEpochs(
        t.engine, check_rows(network, t.loss, X, y).on(t.engine.backend, network.dtype), 32
    ).space
    assert [full.shape[1] for full in space.full] == [narrowest, 24, 8]
    for array in (network.flat, t.engine.grads, *(t.optimizer.state[0][n] for n in ("v", "s"))):
        host = cuda.to_numpy(array)
        for layer in network.layers:
            layer.matrix(host)[...] = 0
        assert not host.any()


@pytest.mark.parametrize("precision", HALF)
def test_parameters_and_state_stay_single_and_the_copy_follows(
    cuda: Any, digits: Any, precision: str
) -> None:
    torch = pytest.importorskip("torch")
    t = trainer(model(), precision=precision)
    t.fit(*digits, epochs=1)
    arrays = [t.model.flat, t.engine.grads, *(t.optimizer.state[0][n] for n in t.optimizer.arrays())]
    assert all(a.dtype == np.float32 for a in arrays)
    kind = getattr(torch, precision)
    copy = torch.from_numpy(cuda.to_numpy(t.engine.precision.half).view(np.int16)).view(kind)
    assert torch.equal(copy, torch.from_numpy(cuda.to_numpy(t.model.flat)).to(kind))


@pytest.mark.parametrize("precision", ["float32", *HALF])
def test_a_callback_may_change_the_parameters(cuda: Any, digits: Any, precision: str) -> None:
    """The next epoch starts from what the callback has written, in all precisions."""

    def clear(t: Any, _history: Any) -> None:
        t.model.flat[...] = 0

    t = trainer(model(), optimizer=gpumlp.SGD(lr=0.0), precision=precision, callbacks=[clear])
    history = t.fit(*digits, epochs=2)
    assert history.loss[1] == pytest.approx(np.log(10), rel=1e-3) != history.loss[0]


@pytest.mark.parametrize("precision", HALF)
def test_a_callback_between_steps_may_too(cuda: Any, digits: Any, precision: str) -> None:
    """As the same steps one by one: the next step computes with what it has left."""

    def clamp(own: Any, step: Any = None) -> None:
        flat = own.model.flat
        cuda.xp.clip(flat, -0.05, 0.05, out=flat)

    X, y = digits[0][:400], digits[1][:400]
    together, single = (
        trainer(model(), precision=precision, callbacks=[EverySteps(1, clamp)] * n) for n in (1, 0)
    )
    together.fit(X, y, epochs=1)
    order = np.random.default_rng([0, 1, 0]).permutation(400)
    for rows in np.split(order, 4):
        single.step(X[rows], y[rows])
        clamp(single)
    assert np.array_equal(*(cuda.to_numpy(t.model.flat) for t in (together, single)))


# ---- numbers -----------------------------------------------
@pytest.mark.parametrize("precision", ["tf32", *HALF])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
def test_gradients_agree_with_single_precision(cuda: Any, digits: Any, loss: str, precision: str) -> None:
    X, y = digits[0][:200], digits[1][:200]
    if loss == "squared_error":
        y = np.eye(10, dtype=np.float32)[y]
    w = np.linspace(0.5, 1.5, 200)
    found = {
        name: trainer(model(), loss=loss, precision=name, l2=0.01).loss_and_grads(X, y, w)
        for name in ("float32", precision)
    }
    (value, grads), (expected, wanted) = found[precision], found["float32"]
    assert abs(value - expected) < GRADIENT[precision] * expected
    for layer, reference in zip(grads, wanted, strict=True):
        for got, true in zip(layer, reference, strict=True):
            assert got.dtype == np.float32
            assert np.linalg.norm(got - true) < GRADIENT[precision] * np.linalg.norm(true)
    if precision in HALF:  # it is not single precision in disguise
        assert not np.array_equal(grads[0][0], wanted[0][0])


@pytest.mark.parametrize("precision", HALF)
def test_accuracy_is_that_of_single_precision(cuda: Any, digits: Any, precision: str) -> None:
    X, y = digits
    accuracy = {}
    for name in ("float32", precision):
        t = trainer(model(), precision=name, clip_norm=5.0)
        history = t.fit(X[:1200], y[:1200], epochs=12, validation=(X[1200:], y[1200:]))
        accuracy[name] = t.evaluate(X, y)["accuracy"]
        assert len(history.val_accuracy) == 12
    assert accuracy["float32"] > 0.93
    assert abs(accuracy[precision] - accuracy["float32"]) <= 0.003


@pytest.mark.parametrize("precision", HALF)
def test_clipping_sees_the_unscaled_gradient(cuda: Any, digits: Any, precision: str) -> None:
    X, y = digits
    moved = {}
    for name in ("float32", precision):
        network = model()
        before = network.get_parameters()
        t = trainer(network, precision=name, clip_norm=0.1, optimizer=gpumlp.SGD(lr=1.0))
        t.step(X[:100], y[:100])
        moved[name] = np.concatenate(
            [
                (b - a).ravel()
                for p, q in zip(before, network.get_parameters(), strict=True)
                for a, b in zip(p, q, strict=True)
            ]
        )
    # a step of lr 1 is as long as the clipped gradient, but for the rounding of the parameters' differences
    assert abs(np.linalg.norm(moved[precision]) - 0.1) < 1e-4
    gap = np.linalg.norm(moved[precision] - moved["float32"])
    assert gap < GRADIENT[precision] * np.linalg.norm(moved["float32"])


@pytest.mark.parametrize("precision", HALF)
def test_parameters_set_between_fits_are_used(cuda: Any, digits: Any, precision: str) -> None:
    X, y = digits
    t, fresh = trainer(model(), precision=precision), model(seed=4)
    t.step(X[:50], y[:50])
    t.model.set_parameters(fresh.get_parameters())
    other = trainer(model(seed=4), precision=precision)
    assert t.loss_and_grads(X[:50], y[:50])[0] == other.loss_and_grads(X[:50], y[:50])[0]


@pytest.mark.parametrize("precision", HALF)
def test_streamed_equals_resident(cuda: Any, digits: Any, precision: str) -> None:
    results = []
    for streaming in (False, True):
        t = trainer(model(dropout=0.2), precision=precision)
        t.fit(*digits, epochs=2, streaming=streaming)
        results.append(cuda.to_numpy(t.model.flat))
    np.testing.assert_array_equal(*results)


# ---- overflow -----------------------------------------------
def _state(t: Any) -> list[np.ndarray]:
    backend, state = t.model.backend, t.optimizer.state[0]
    return [backend.to_numpy(a) for a in (t.model.flat, *(state[n] for n in t.optimizer.arrays()))]


def test_an_overflowing_step_changes_nothing_and_is_counted(cuda: Any, digits: Any) -> None:
    X, y = digits[0][:100], digits[1][:100]
    t = trainer(model(), precision="float16")
    t.step(X, y)
    assert t.engine.precision.loss_scale() == (2.0**16, 0)
    before = _state(t)
    t.engine.precision.scaler[0] = 2.0**40  # the gradient of the output does not fit into float16
    t.step(X, y)
    for a, b in zip(before, _state(t), strict=True):
        np.testing.assert_array_equal(a, b)
    assert t.engine.precision.loss_scale() == (2.0**39, 1)
    assert t.optimizer.t == 2  # counted all the same


def test_overflows_are_skipped_counted_and_recovered_from(cuda: Any, digits: Any) -> None:
    t = trainer(model(), precision="float16")
    t.engine.precision.scaler[0] = 2.0**32
    history = t.fit(*digits, epochs=8)
    scale, skipped = t.engine.precision.loss_scale()
    assert sum(history.skipped) == skipped >= history.skipped[0] > 3 and history.skipped[-1] == 0
    assert scale == 2.0 ** (32 - skipped)
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert all(np.isfinite(history.loss))
    assert t.fit(*digits, epochs=1).skipped == [0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_only_float16_records_skipped_steps(cuda: Any, digits: Any, precision: str) -> None:
    history = trainer(model(), precision=precision).fit(*digits, epochs=1)
    with pytest.raises(AttributeError, match="no metric 'skipped'"):
        _ = history.skipped


def test_norms_have_the_loss_scale_of_their_step(cuda: Any, digits: Any) -> None:
    """The second of three equal steps doubles the scale."""
    seen: list[Any] = []
    look = EverySteps(
        1, lambda own, step: seen.append((own.loss_scale_state()[0], step.grad_norms)), norms=True
    )
    t = trainer(model(), optimizer=gpumlp.SGD(lr=0.0), precision="float16", callbacks=[look])
    t.restore_loss_scale(np.array([2.0**10, 0, GROWTH_STEPS - 2, 0], np.float32))
    t.fit(digits[0][:100], digits[1][:100], epochs=3)
    assert [scale for scale, _ in seen] == [2.0**10, 2.0**11, 2.0**11]
    for _, norms in seen:
        np.testing.assert_allclose(norms, seen[0][1], rtol=GRADIENT["float16"])


# ---- cost -----------------------------------------------
def test_launches_of_a_step(cuda: Any, simgpu: Any, digits: Any) -> None:
    """bfloat16 costs no launch; float16 two, for the norm.  Nothing else happens in an epoch."""
    X, y = cuda.asarray(digits[0][:1000]), cuda.asarray(digits[1][:1000].astype(np.int32))
    counts = {}
    for name in PRECISIONS:
        t = trainer(model(), precision=name)
        t.fit(X, y, epochs=1)
        with simgpu.watch() as c:
            t.fit(X, y, epochs=3)
        counts[name] = dict(c)
    plain = counts["float32"]
    assert plain["graph_launches"] == 30 + 3  # a step each, and the sums of an epoch
    for name, extra in {"tf32": 0, "bfloat16": 0, "float16": 2}.items():
        assert counts[name]["graph_kernels"] - plain["graph_kernels"] == 30 * extra
        assert counts[name]["graph_launches"] == plain["graph_launches"]
        assert counts[name]["mallocs"] == 0
    # once per fit: the copy of the parameters, and the number of steps skipped so far
    assert counts["bfloat16"]["memcpy_d2h_count"] == plain["memcpy_d2h_count"]
    assert counts["float16"]["memcpy_d2h_count"] == plain["memcpy_d2h_count"] + 1
