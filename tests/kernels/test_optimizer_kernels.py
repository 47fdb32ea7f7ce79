"""Fused update kernels: options, penalties on weights only, clipping, through `launch` and `record`."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import oracles
import pytest
from gpumlp.kernels.optimizers.rule import BLOCK
from launching import HOW, Flat, run
from rules import OPTIONS, PENALTIES, RULE_IDS, RULES, make, name_of
from tolerances import close

from gpumlp.optimizers import OPTIMIZERS

pytestmark = pytest.mark.memory


def segments_of(n: int) -> list[tuple[int, int, float]]:
    """Alternating ranges of weights and biases that cover 0..n-1."""
    cuts = sorted({0, n // 3, n // 2, n - n // 7, n})
    return [(a, b, float(i % 2 == 0)) for i, (a, b) in enumerate(zip(cuts[:-1], cuts[1:], strict=True))]


def check(
    backend: Any, optimizer: Any, n: int, dtype: Any, how: str, clip: float | None, steps: int = 3
) -> None:
    """`steps` launches of the optimiser's kernel against its oracle."""
    rng = np.random.default_rng(n)
    start = rng.uniform(-0.5, 0.5, n).astype(dtype)
    start[::5] = 0  # where sign(w) = 0 and soft thresholding matter
    p = Flat(backend, start)
    names, values = optimizer.arrays(), optimizer.state_start()
    state = {name: Flat(backend, np.full(n, values.get(name, 0.0), dtype)) for name in names}
    if "average" in names:
        state["average"] = Flat(backend, start)
    average = start.astype(float)
    kernel = optimizer.kernel(clip=clip is not None)
    decay, segments = np.zeros(n), segments_of(n)
    for first, last, factor in segments:
        decay[first:last] = factor
    expected, memory = start.astype(float), {}
    for t in range(1, steps + 1):
        # never near -l2 w - l1 sign(w): a sum of nothing but rounding errors, divided by its size, is noise
        g = (rng.choice([-1, 1], n) * rng.uniform(1, 2, n)).astype(dtype)
        g[::7] = 0
        arrays = {"g": Flat(backend, g), "p": p, **state}
        if clip is not None:
            arrays["clip_scale"] = Flat(backend, np.array([clip], dtype))
        all_values = optimizer.step_values(t, optimizer.lr)
        run(
            backend,
            how,
            kernel,
            arrays,
            optimizer.scalars(kernel),
            {name: float(all_values[name]) for name in kernel.stepped},
            rows=1,
            cols=n,
            segments=segments if kernel.masked and n else None,
            dtype=dtype,
        )
        assert (arrays["g"].read() == g).all(), "the gradient was changed"
        expected = oracles.step(optimizer, expected, g, memory, t, decay=decay, clip=clip or 1.0)
        close(p.read(), expected, "optimizer")
        if "average" in names:
            keep = min(optimizer.average, t / (t + 9))
            average = keep * average + (1 - keep) * expected
            close(state["average"].read(), average, "optimizer")


def test_options_are_complete() -> None:
    assert set(OPTIONS) == set(OPTIMIZERS) == set(oracles.RULES)


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize(("rule", "options"), RULES, ids=RULE_IDS)
def test_options(backend: Any, dtype: Any, rule: str, options: dict) -> None:
    check(backend, make(rule, options), 127, dtype, "launch", None)


@pytest.mark.cuda_sample(7)
@pytest.mark.parametrize("penalties", PENALTIES, ids=name_of)
@pytest.mark.parametrize("clip", [None, 0.25], ids=["whole", "clipped"])
def test_penalties(backend: Any, dtype: Any, penalties: dict, clip: float | None) -> None:
    check(backend, make("sgd", {"lr": 0.1, "momentum": 0.9}, **penalties), 127, dtype, "record", clip)


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_everything_at_once(backend: Any, dtype: Any, rule: str) -> None:
    most = max(OPTIONS[rule], key=lambda options: sum(bool(v) for v in options.values()))
    penalties = {"l1": 0.03, "l2": 0.2, "weight_decay": 0.1, "proximal": True, "average": 0.2}
    for how in HOW:
        check(backend, make(rule, most, **penalties), 130, dtype, how, 0.5)


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("n", [0, 1, 3, 127, 2**16 + 1])
@pytest.mark.parametrize("rule", ["adagrad", "adam"])  # rsqrt, which has vectors of its own, and sqrt
def test_sizes(backend: Any, dtype: Any, rule: str, n: int) -> None:
    check(backend, make(rule, OPTIONS[rule][0], l2=0.2), n, dtype, "launch", None, steps=2)


@pytest.mark.cuda_sample(7)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("proximal", [False, True])
@pytest.mark.parametrize(("rule", "options"), RULES, ids=RULE_IDS)
def test_bad_gradient_shows(on: Any, rule: str, options: dict, proximal: bool, bad: float) -> None:
    """A gradient that is not finite spoils its own parameter, visibly, and no other one."""
    optimizer = make(rule, options, l1=0.01 if proximal else 0.0, proximal=proximal)
    p, g = np.ones(40, np.float32), np.ones(40, np.float32)
    g[17] = bad
    flat = on.asarray(p)
    with np.errstate(all="ignore"):
        optimizer.update(flat, on.asarray(g))
    got = on.to_numpy(flat)
    assert not np.isfinite(got[17])
    assert np.isfinite(np.delete(got, 17)).all()


def test_nan_parameter_stays_nan(on: Any, dtype: Any) -> None:
    """Soft thresholding must not turn a lost parameter into a clean zero."""
    p = on.asarray(np.array([np.nan, np.inf, -np.inf, 1.0], dtype))
    make("sgd", {"lr": 0.1}, l1=0.5, proximal=True).update(p, on.zeros(4, dtype))
    close(on.to_numpy(p), [np.nan, np.inf, -np.inf, 0.95], "elementwise")


def test_centered_rmsprop_with_huge_gradient_does_not_jump(on: Any) -> None:
    """g^2 overflows: s - m^2 is inf or inf - inf = NaN, which is no variance of 0, and no NaN either."""
    p = on.asarray(np.ones(3, np.float32))
    with np.errstate(all="ignore"):
        make("rmsprop", {"centered": True}).update(p, on.asarray(np.array([1e25, -1e31, 1e36], np.float32)))
    assert (on.to_numpy(p) == 1).all()


@pytest.mark.parametrize("size", [1e19, 2e19, 5e20])
def test_adams_first_step_is_lr_whatever_the_gradient(on: Any, size: float) -> None:
    """s fits float32, s / (1 - beta2^t) does not."""
    p = on.asarray(np.zeros(2, np.float32))
    make("adam", {"lr": 0.5}).update(p, on.asarray(np.array([size, -size], np.float32)))
    close(on.to_numpy(p), [-0.5, 0.5], "optimizer")


@pytest.mark.parametrize("rule", ["adagrad", "rmsprop", "adam", "adamw"])
def test_eps_that_is_zero_in_float32_is_refused(on: Any, rule: str) -> None:
    optimizer, p = make(rule, {"eps": 1e-50}), on.asarray(np.ones(2, np.float32))
    with pytest.raises(ValueError, match=r"eps=1e-50 is too small for float32; expected at least 1\.2e-38"):
        optimizer.update(p, on.asarray(np.zeros(2, np.float32)))
    assert optimizer.t == 0 and (on.to_numpy(p) == 1).all()
    optimizer.update(on.asarray(np.ones(2)), on.asarray(np.zeros(2)))  # float64 holds it


def test_arrays_of_several_blocks(on: Any, dtype: Any) -> None:
    """NumPy takes long arrays in blocks, state included; none is left out."""
    n = 2 * BLOCK + 1
    optimizer = make("sgd", {"lr": 0.5, "momentum": 0.5})
    p, g = on.asarray(np.ones(n, dtype)), on.asarray(np.ones(n, dtype))
    for expected in (0.5, -0.25):
        optimizer.update(p, g)
        assert (on.to_numpy(p) == expected).all()


def test_kernels_of_different_text_have_different_names() -> None:
    bodies: dict[str, str] = {}
    more = [{**penalties, "average": average} for penalties in PENALTIES for average in (0.0, 0.5)]
    for (rule, options), penalties in itertools.product(RULES, more):
        optimizer = make(rule, options, **penalties)
        for clip, half, guard in itertools.product((False, True), repeat=3):
            kernel = optimizer.kernel(clip=clip, half=half, guard=guard)
            assert bodies.setdefault(kernel.name, kernel.body) == kernel.body
