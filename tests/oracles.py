"""Formulas once more, independently of the package: float64, written from the textbook."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def _each(f: Any) -> Any:
    return np.vectorize(f, otypes=[float])


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def _phi(z: float) -> float:
    """Normal distribution function; erfc keeps the small values of the left tail."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _density(z: float) -> float:
    return _exp(-z * z / 2) / math.sqrt(2 * math.pi)


#: name -> (f, f') of one number z
ACTIVATIONS = {
    "relu": (lambda z: max(z, 0.0), lambda z: 1.0 if z > 0 else 0.0),
    "tanh": (math.tanh, lambda z: 1 - math.tanh(z) ** 2),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "identity": (lambda z: z, lambda z: 1.0),
    "leaky_relu": (lambda z: z if z > 0 else 0.01 * z, lambda z: 1.0 if z > 0 else 0.01),
    "elu": (lambda z: z if z > 0 else math.expm1(z), lambda z: 1.0 if z > 0 else math.exp(z)),
    "gelu": (lambda z: z * _phi(z), lambda z: _phi(z) + z * _density(z)),
    "silu": (lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) + z * _sigmoid(z) * _sigmoid(-z)),
    "softplus": (lambda z: z + math.log1p(_exp(-z)) if z > 0 else math.log1p(_exp(z)), _sigmoid),
}


def activation(name: str, z: np.ndarray) -> np.ndarray:
    return _each(ACTIVATIONS[name][0])(np.asarray(z, float)) if np.size(z) else np.zeros(np.shape(z))


def slope(name: str, z: np.ndarray) -> np.ndarray:
    return _each(ACTIVATIONS[name][1])(np.asarray(z, float)) if np.size(z) else np.zeros(np.shape(z))


# ---- losses: (value, gradient) of one row, targets as the package takes them ----------
def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - np.max(z))
    return e / math.fsum(e)


def _softmax_row(z: Any, y: Any, delta: float) -> tuple[float, list[float]]:
    top = np.max(z)
    value = math.log(math.fsum(np.exp(z - top))) - (z[int(y)] - top)
    return value, [p - (c == int(y)) for c, p in enumerate(softmax(z))]


def _mean_of(pair: Any) -> Any:
    def row(z: Any, y: Any, delta: float) -> tuple[float, list[float]]:
        pairs = [pair(float(a), float(b), delta) for a, b in zip(z, y, strict=True)]
        return math.fsum(v for v, _ in pairs) / len(pairs), [g / len(pairs) for _, g in pairs]

    return row


def _log1pexp(z: float) -> float:
    return ACTIVATIONS["softplus"][0](z)


def _huber(z: float, y: float, delta: float) -> tuple[float, float]:
    d = z - y
    if abs(d) <= delta:
        return 0.5 * d * d, d
    return delta * (abs(d) - delta / 2), math.copysign(delta, d)


def _binary(z: float, y: float) -> tuple[float, float]:
    return y * _log1pexp(-z) + (1 - y) * _log1pexp(z), _sigmoid(z) - y


def _smoothed_row(z: Any, y: Any, delta: float) -> tuple[float, list[float]]:
    """The mean of the losses of all labels, each as often as it is wanted."""
    rows = [_softmax_row(z, label, 0.0) for label in range(len(z))]
    wanted = [delta / len(z) + (1 - delta) * (label == int(y)) for label in range(len(z))]
    value = math.fsum(q * v for q, (v, _) in zip(wanted, rows, strict=True))
    return value, [p - q for p, q in zip(softmax(z), wanted, strict=True)]


def pinball(z: float, y: float, level: float) -> tuple[float, float]:
    d = y - z
    return max(level * d, (level - 1) * d), 0.0 if d == 0 else -level if d > 0 else 1 - level


def _quantiles(z: Any, y: Any, levels: Any) -> tuple[float, list[float]]:
    pairs = [pinball(float(a), float(y[0]), float(q)) for a, q in zip(z, levels, strict=True)]
    return math.fsum(v for v, _ in pairs) / len(pairs), [g / len(pairs) for _, g in pairs]


#: name -> f(z, y, delta) -> (value, gradient)
LOSSES = {
    "softmax_cross_entropy": _softmax_row,
    "binary_cross_entropy": _mean_of(lambda z, y, _: _binary(z, y)),
    "squared_error": _mean_of(lambda z, y, _: (0.5 * (z - y) ** 2, z - y)),
    "absolute_error": _mean_of(lambda z, y, _: (abs(z - y), float(np.sign(z - y)))),
    "huber": _mean_of(_huber),
    "poisson": _mean_of(lambda z, y, _: (_exp(z) - y * z, _exp(z) - y)),
    "softmax_cross_entropy_smoothed": _smoothed_row,
    "binary_cross_entropy_smoothed": _mean_of(
        lambda z, y, s: _binary(z, (1 - s) * y + s / 2),
    ),
    "quantile": _quantiles,
}

LINKS = {
    "identity": lambda row: row,
    "exp": lambda row: np.array([_exp(v) for v in row]),
    "sigmoid": lambda row: np.array([_sigmoid(v) for v in row]),
    "softmax": softmax,
    "sorted": lambda row: np.array(sorted(row)),
}


def score(loss: str, z: np.ndarray, y: Any) -> float:
    """The row's metric: 1 or 0 for right or wrong, else the sum of squared errors of the prediction."""
    if loss == "quantile":
        return float((sorted(z)[(len(z) - 1) // 2] - y[0]) ** 2)
    if loss.startswith("softmax_cross_entropy"):
        return float(int(np.argmax(z)) == int(y))
    if loss.startswith("binary_cross_entropy"):
        return float(all((a > 0) == (b > 0.5) for a, b in zip(z, y, strict=True)))
    predicted = [_exp(v) if loss == "poisson" else v for v in z]
    return math.fsum((a - b) ** 2 for a, b in zip(predicted, y, strict=True))


# ---- Philox4x32-10, on Python integers ----------
def philox(counter: Any, key: Any) -> list[int]:
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def kept(rows: int, cols: int, *, step: int, layer: int, key: int, rate: float) -> np.ndarray:
    """The mask: element (r, c) takes word c % 4 of counter (c // 4, r, low 24 bits of step, rest)."""
    mask = np.zeros((rows, cols), bool)
    for r in range(rows):
        for c in range(0, cols, 4):
            counter = (c // 4, r, step % 2**24, ((layer << 24) ^ (step >> 24)) & 0xFFFFFFFF)
            words = philox(counter, (key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF))
            mask[r, c : c + 4] = [w >= round(rate * 2**32) for w in words[: cols - c]]
    return mask


# ---- update rules, one step on float64 arrays; `s` is a dict that keeps the state ----------
def sgd(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    if not o.momentum:
        return w - lr * g
    g_in = g if t == 1 else (1 - o.dampening) * g
    if o.lr_in_velocity:  # scikit-learn, Keras
        s["v"] = o.momentum * s.get("v", 0) + lr * g_in
        return w - (lr * g + o.momentum * s["v"] if o.nesterov else s["v"])
    s["v"] = o.momentum * s.get("v", 0) + g_in
    return w - lr * (g + o.momentum * s["v"] if o.nesterov else s["v"])


def adagrad(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    s["s"] = s.get("s", o.initial_accumulator) + g**2
    return w - lr * g / (np.sqrt(s["s"] + o.eps) if o.eps_in_sqrt else np.sqrt(s["s"]) + o.eps)


def rmsprop(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    s["s"] = o.rho * s.get("s", 0) + (1 - o.rho) * g**2
    spread = s["s"]
    if o.centered:
        s["m"] = o.rho * s.get("m", 0) + (1 - o.rho) * g
        spread = np.maximum(spread - s["m"] ** 2, 0)
    move = g / (np.sqrt(spread + o.eps) if o.eps_in_sqrt else np.sqrt(spread) + o.eps)
    if o.momentum:
        move = s["v"] = o.momentum * s.get("v", 0) + move
    return w - lr * move


def adam(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    b1, b2 = o.betas
    s["v"] = b1 * s.get("v", 0) + (1 - b1) * g
    s["s"] = b2 * s.get("s", 0) + (1 - b2) * g**2
    second = s["s"]
    if o.amsgrad:
        second = s["top"] = np.maximum(s.get("top", 0), second)
    if o.eps_hat:  # scikit-learn, Keras: the textbook's numerator, eps beside the uncorrected root
        return w - lr * math.sqrt(1 - b2**t) / (1 - b1**t) * s["v"] / (np.sqrt(second) + o.eps)
    return w - lr * (s["v"] / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + o.eps)


def adadelta(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    s["g2"] = o.rho * s.get("g2", 0) + (1 - o.rho) * g**2
    move = np.sqrt(s.get("x2", 0) + o.eps) / np.sqrt(s["g2"] + o.eps) * g
    s["x2"] = o.rho * s.get("x2", 0) + (1 - o.rho) * move**2
    return w - lr * move


def yogi(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    b1, b2 = o.betas
    s["v"] = b1 * s.get("v", 0) + (1 - b1) * g
    old = s.get("s", o.initial_accumulator + 0 * g)
    s["s"] = old - (1 - b2) * np.sign(old - g**2) * g**2
    if not o.bias_correction:
        return w - lr * s["v"] / (np.sqrt(s["s"]) + o.eps)
    return w - lr * (s["v"] / (1 - b1**t)) / (np.sqrt(s["s"] / (1 - b2**t)) + o.eps)


def nadam(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    b1, b2 = o.betas
    now, after = (b1 * (1 - 0.5 * 0.96 ** (n * o.momentum_decay)) for n in (t, t + 1))
    s["product"] = s.get("product", 1.0) * now
    s["v"] = b1 * s.get("v", 0) + (1 - b1) * g
    s["s"] = b2 * s.get("s", 0) + (1 - b2) * g**2
    mean = (1 - now) / (1 - s["product"]) * g + after / (1 - s["product"] * after) * s["v"]
    return w - lr * mean / (np.sqrt(s["s"] / (1 - b2**t)) + o.eps)


def radam(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    b1, b2 = o.betas
    s["v"] = b1 * s.get("v", 0) + (1 - b1) * g
    s["s"] = b2 * s.get("s", 0) + (1 - b2) * g**2
    mean, limit = s["v"] / (1 - b1**t), 2 / (1 - b2) - 1
    n = limit - 2 * t * b2**t / (1 - b2**t)
    if n <= 5:
        return w - lr * mean
    r = math.sqrt((n - 4) * (n - 2) * limit / ((limit - 4) * (limit - 2) * n))
    return w - lr * mean * r * math.sqrt(1 - b2**t) / (np.sqrt(s["s"]) + o.eps)


def lion(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    b1, b2 = o.betas
    w = w - lr * np.sign(b1 * s.get("m", 0) + (1 - b1) * g)
    s["m"] = b2 * s.get("m", 0) + (1 - b2) * g
    return w


def orthogonal(u: np.ndarray, rounds: int = 5) -> np.ndarray:
    """Muon's Newton-Schulz rounds as its authors write them."""
    x = u / max(np.linalg.norm(u), 1e-7)
    x = x.T if len(u) > u.shape[1] else x
    for _ in range(rounds):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if len(u) > u.shape[1] else x


def muon(w: Any, g: Any, s: dict, t: int, lr: float, o: Any) -> Any:
    if np.ndim(w) != 2 or not np.size(w):
        return adam(w, g, s, t, lr, o)
    rows, cols = w.shape  # of outputs and inputs
    s["m"] = o.momentum * s.get("m", 0) + (1 - o.momentum) * g
    u = o.momentum * s["m"] + (1 - o.momentum) * g if o.nesterov else s["m"]
    size = 0.2 * math.sqrt(max(rows, cols)) if o.match_rms else math.sqrt(max(1, rows / cols))
    return w - lr * size * orthogonal(u, o.ns_steps)


RULES = {
    "sgd": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adam,
    "adadelta": adadelta,
    "yogi": yogi,
    "nadam": nadam,
    "radam": radam,
    "lion": lion,
    "muon": muon,
}


def step(o: Any, w: Any, g: Any, s: dict, t: int, *, decay: Any = 1.0, clip: float = 1.0) -> Any:
    """One step of optimiser object `o` with its penalties; `decay` is 1 for weights, 0 for biases."""
    g = np.asarray(g, float) * clip + decay * o.l2 * w
    if not o.proximal:
        g = g + decay * o.l1 * np.sign(w)
    w = RULES[o.name](w * (1 - decay * o.lr * o.weight_decay), g, s, t, o.lr, o)
    if o.proximal:
        w = np.sign(w) * np.maximum(np.abs(w) - decay * o.lr * o.l1, 0)
    return w
