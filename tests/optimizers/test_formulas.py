"""100 steps against the textbook's formulas, other libraries' conventions and the penalties' definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import pytest
from rules import PENALTIES, RULE_IDS, RULES, make, name_of
from tolerances import RELATIVE, close

import gpumlp
from gpumlp.optimizers import OPTIMIZERS


def walk(on: Any, optimizer: Any, dtype: Any, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """(what the optimiser makes of 100 gradients, what the oracle makes of them)."""
    rng = np.random.default_rng(5)
    start = rng.uniform(-1, 1, n).astype(dtype)
    p, expected, memory = on.asarray(start.copy()), start.astype(float), {}
    for t in range(1, 101):
        g = rng.normal(size=n).astype(dtype)
        optimizer.update(p, on.asarray(g))
        expected = oracles.step(optimizer, expected, g, memory, t)
    return on.to_numpy(p), expected


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize(("rule", "options"), RULES, ids=RULE_IDS)
def test_options(on: Any, dtype: Any, rule: str, options: dict) -> None:
    got, expected = walk(on, make(rule, options), dtype)
    close(got, expected, "100 steps")


@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_defaults(on: Any, rule: str) -> None:
    got, expected = walk(on, OPTIMIZERS[rule](), np.float64)
    close(got, expected, "100 steps")


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("penalties", PENALTIES, ids=name_of)
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_penalties(on: Any, rule: str, penalties: dict) -> None:
    got, expected = walk(on, make(rule, {"lr": 0.01}, **penalties), np.float64)
    close(got, expected, "100 steps")


PAPERS = ("nadam", "radam", "lion")
BY_HAND = ("sgd", "adagrad", "rmsprop", "adadelta", "yogi", "adam", "adamw", "muon", *PAPERS)


def by_hand(rule: str, w: float, gradients: list[float]) -> float:
    """The textbook's update rules, chapter by chapter, on one number and with its constants."""
    if rule in PAPERS:
        return by_hand_of_papers(rule, w, gradients)
    v = s = 0.0
    for t, g in enumerate(gradients, start=1):
        if rule == "sgd":  # 12.4
            w = w - 0.01 * g
        elif rule == "adagrad":  # 12.7
            s = s + g * g
            w = w - 0.01 / math.sqrt(s + 1e-6) * g
        elif rule == "rmsprop":  # 12.8, gamma = 0.9
            s = 0.9 * s + 0.1 * g * g
            w = w - 0.001 / math.sqrt(s + 1e-6) * g
        elif rule == "adadelta":  # 12.9, eps as in Zeiler's paper
            s = 0.9 * s + 0.1 * g * g
            move = math.sqrt(v + 1e-6) / math.sqrt(s + 1e-6) * g
            v = 0.9 * v + 0.1 * move * move
            w = w - move
        elif rule == "yogi":  # 12.10.3
            v = 0.9 * v + 0.1 * g
            s = s + 0.001 * math.copysign(g * g, g * g - s)
            w = w - 0.01 * (v / (1 - 0.9**t)) / (math.sqrt(s / (1 - 0.999**t)) + 1e-3)
        else:  # 12.10
            assert rule in ("adam", "adamw", "muon")  # one number is no matrix
            if rule == "muon":
                w = w - 0.02 * 0.1 * w
                v, s = 0.9 * v + 0.1 * g, 0.999 * s + 0.001 * g * g
                w = w - 0.02 * (v / (1 - 0.9**t)) / (math.sqrt(s / (1 - 0.999**t)) + 1e-6)
                continue
            if rule == "adamw":
                w = w - 0.001 * 0.01 * w
            v = 0.9 * v + 0.1 * g
            s = 0.999 * s + 0.001 * g * g
            w = w - 0.001 * (v / (1 - 0.9**t)) / (math.sqrt(s / (1 - 0.999**t)) + 1e-6)
    return w


def by_hand_of_papers(rule: str, w: float, gradients: list[float]) -> float:
    """Rules that the textbook does not have: Dozat 2016, Liu et al. 2020, Chen et al. 2023."""
    v = s = 0.0
    product = 1.0
    for t, g in enumerate(gradients, start=1):
        if rule == "lion":
            look = 0.9 * v + 0.1 * g
            w = w - 1e-4 * ((look > 0) - (look < 0))
            v = 0.99 * v + 0.01 * g
            continue
        v = 0.9 * v + 0.1 * g
        s = 0.999 * s + 0.001 * g * g
        if rule == "nadam":
            now, after = 0.9 * (1 - 0.5 * 0.96 ** (t * 0.004)), 0.9 * (1 - 0.5 * 0.96 ** ((t + 1) * 0.004))
            product *= now
            mean = (1 - now) * g / (1 - product) + after * v / (1 - product * after)
            w = w - 2e-3 * mean / (math.sqrt(s / (1 - 0.999**t)) + 1e-8)
            continue
        assert rule == "radam"
        n = 1999 - 2 * t * 0.999**t / (1 - 0.999**t)
        mean = v / (1 - 0.9**t)
        if n > 5:
            mean *= math.sqrt((n - 4) * (n - 2) * 1999 / (1995 * 1997 * n))
            mean *= math.sqrt(1 - 0.999**t) / (math.sqrt(s) + 1e-8)
        w = w - 1e-3 * mean
    return w


@pytest.mark.parametrize("decay", [0.0, 1e-9, 4e-3, 0.24, 0.25, 0.26, 1.0, 50.0])
def test_nadams_product_of_momenta(decay: float) -> None:
    """1 / (1 - M_t) comes from a table that ends: here against the product itself, far beyond it."""
    for beta in (0.0, 0.5, 0.9, 0.999, 0.9999999):
        rule, product, n = gpumlp.NAdam(betas=(beta, 0.999), momentum_decay=decay), 1.0, 6000
        product = np.cumprod(beta * (1 - 0.5 * 0.96 ** (np.arange(1, n + 2) * decay)))
        momentum = beta * (1 - 0.5 * 0.96 ** (np.arange(1, n + 2) * decay))
        values = rule.stepped(np.arange(1, n + 1), 0.1)
        np.testing.assert_allclose(
            values["c_grad"], (1 - momentum[:-1]) / (1 - product[:-1]), rtol=RELATIVE["run"]
        )
        np.testing.assert_allclose(values["c_mean"], momentum[1:] / (1 - product[1:]), rtol=RELATIVE["run"])
        for t in (1, 2, 5000):
            one = rule.stepped(t, 0.1)["c_grad"]
            np.testing.assert_allclose(one, values["c_grad"][t - 1], rtol=RELATIVE["few roundings"])


def test_radams_first_steps_have_no_root(on: Any) -> None:
    """n_t > 5 from t = 6 on for b2 = 0.999: five steps go by the mean gradient, whatever its size."""
    p, optimizer = on.asarray(np.zeros(2)), gpumlp.RAdam(lr=0.5)
    for _ in range(5):
        optimizer.update(p, on.asarray(np.array([3.0, -0.25])))
    close(on.to_numpy(p), [-7.5, 0.625], "optimizer")
    optimizer.update(p, on.asarray(np.array([3.0, -0.25])))
    assert abs(on.to_numpy(p)[0] + 7.5) < 0.1 and abs(on.to_numpy(p)[1] - 0.625) < 0.1


def test_yogis_second_moment_falls_slowly(on: Any) -> None:
    """After large gradients s loses at most (1 - b2) g^2 per step, where Adam's loses (1 - b2) s."""
    p = on.asarray(np.zeros(1))
    yogi = gpumlp.Yogi(bias_correction=False, betas=(0.0, 0.9))
    yogi.update(p, on.asarray(np.array([10.0])))
    for _ in range(5):
        yogi.update(p, on.asarray(np.array([1.0])))
    close(on.to_numpy(yogi.state[0]["s"]), [10.0 - 5 * 0.1], "optimizer")


@pytest.mark.parametrize("rule", BY_HAND)
def test_defaults_are_the_textbooks(on: Any, rule: str) -> None:
    gradients = [math.sin(3 * t) + 0.1 for t in range(100)]
    p, optimizer = on.asarray(np.array([0.7])), OPTIMIZERS[rule]()
    for g in gradients:
        optimizer.update(p, on.asarray(np.array([g])))
    close(on.to_numpy(p)[0], by_hand(rule, 0.7, gradients), "100 steps")


def test_momentum_is_the_textbooks(on: Any) -> None:
    """12.6: v = beta v + g, x = x - eta v."""
    p, v, x = on.asarray(np.array([1.0])), 0.0, 1.0
    optimizer = gpumlp.SGD(lr=0.05, momentum=0.9)
    for t in range(100):
        g = math.cos(t)
        optimizer.update(p, on.asarray(np.array([g])))
        v = 0.9 * v + g
        x -= 0.05 * v
    close(on.to_numpy(p)[0], x, "100 steps")


def test_scikit_learns_adam(on: Any) -> None:
    """sklearn.neural_network._stochastic_optimizers.AdamOptimizer, on one number."""
    p, w, m, v = on.asarray(np.array([1.0])), 1.0, 0.0, 0.0
    optimizer = gpumlp.Adam(lr=0.01, eps=1e-8, eps_hat=True)
    for t in range(1, 101):
        g = 1e-6 * math.cos(t)  # small gradients: here eps matters
        optimizer.update(p, on.asarray(np.array([g])))
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        rate = 0.01 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w -= rate * m / (math.sqrt(v) + 1e-8)
    close(on.to_numpy(p)[0], w, "100 steps")
    plain = on.asarray(np.array([1.0]))
    gpumlp.Adam(lr=0.01, eps=1e-8).update(plain, on.asarray(np.array([1e-6])))
    first = on.asarray(np.array([1.0]))
    gpumlp.Adam(lr=0.01, eps=1e-8, eps_hat=True).update(first, on.asarray(np.array([1e-6])))
    # at t = 1: lr g / (g + eps), and lr g / (g + eps / sqrt(0.001))
    close(1 - on.to_numpy(plain)[0], 0.01 / 1.01, "figures")
    close(1 - on.to_numpy(first)[0], 0.01 / (1 + 0.01 / math.sqrt(0.001)), "figures")


def test_scikit_learns_momentum_when_the_rate_changes(on: Any) -> None:
    """velocity = momentum velocity - lr g with the lr of the step, inside the velocity."""
    p, w, velocity = on.asarray(np.array([1.0])), 1.0, 0.0
    optimizer = gpumlp.SGD(momentum=0.9, nesterov=True, lr_in_velocity=True)
    for t in range(50):
        optimizer.lr = 0.1 / (t + 1)
        g = math.cos(t)
        optimizer.update(p, on.asarray(np.array([g])))
        velocity = 0.9 * velocity - optimizer.lr * g
        w += 0.9 * velocity - optimizer.lr * g
    close(on.to_numpy(p)[0], w, "100 steps")


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.999, 0.9999999])
def test_first_step_of_adam_is_the_learning_rate(on: Any, dtype: Any, beta: float) -> None:
    """v^ = g and s^ = g^2 at t = 1 whatever the betas: bias correction without cancellation."""
    p = on.asarray(np.zeros(3, dtype))
    gpumlp.Adam(lr=0.5, betas=(beta, beta), eps=1e-30).update(
        p, on.asarray(np.array([3.0, -0.25, 0.0], dtype))
    )
    close(on.to_numpy(p), [-0.5, 0.5, 0], "optimizer")


def test_centered_variance_is_clamped(on: Any, dtype: Any) -> None:
    """A constant gradient has no variance: rounding must not make the root's argument negative."""
    p = on.asarray(np.zeros(64, dtype))
    g = on.asarray(np.linspace(0.1, 9.7, 64).astype(dtype))
    optimizer = gpumlp.RMSProp(lr=1e-6, rho=0.5, centered=True, eps=1e-12)
    for _ in range(60):
        optimizer.update(p, g)
    assert np.isfinite(on.to_numpy(p)).all()


def test_l1_subgradient_at_zero(on: Any) -> None:
    p = on.asarray(np.array([0.0, -0.0, 2.0, -2.0]))
    gpumlp.SGD(lr=0.5, l1=0.2).update(p, on.asarray(np.zeros(4)))
    close(on.to_numpy(p), [0, 0, 1.9, -1.9], "elementwise")


def test_proximal_step_gives_exact_zeros(on: Any, dtype: Any) -> None:
    w = np.array([0.3, -0.3, 0.1, -0.1, 0.05, -0.05, 0.0], dtype)
    p = on.asarray(w.copy())
    gpumlp.SGD(lr=0.5, l1=0.2, proximal=True).update(p, on.asarray(np.zeros(7, dtype)))
    close(on.to_numpy(p)[:2], [0.2, -0.2], "elementwise")
    limit = np.abs(w) < 0.1  # lr l1; 0.1 itself is on the edge in float32
    assert (on.to_numpy(p)[limit] == 0).all()


def test_decoupled_decay_does_not_enter_the_moments(on: Any) -> None:
    """Without a gradient AdamW only shrinks, Adam with l2 moves by lr."""
    p, q = on.asarray(np.array([4.0])), on.asarray(np.array([4.0]))
    gpumlp.AdamW(lr=0.1, weight_decay=0.5).update(p, on.asarray(np.zeros(1)))
    gpumlp.Adam(lr=0.1, l2=0.5).update(q, on.asarray(np.zeros(1)))
    close(on.to_numpy(p), [4 * 0.95], "elementwise")
    close(on.to_numpy(q), [3.9], "figures", scale=1e6)
