"""The task of `bench_training.py` done by gpumlp's peers; PyTorch has a file of its own."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from scripts.bench.torch_training import with_torch
from scripts.bench.training_task import EPS, LR, SEED, Epoch, Task
from scripts.shared.timing import after_warm_up

#: what Keras computes with: the user's choice, else JAX
KERAS = os.environ.get("KERAS_BACKEND") or "jax"


# ---- JAX ---------------------------------------------------------------------------------------------------
_JAX_PRODUCTS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}


def jax_device() -> str:
    """ "cuda" if JAX is installed and has a GPU, else ""."""
    if importlib.util.find_spec("jax") is None:
        return ""
    import jax

    try:
        return "cuda" if jax.devices("gpu") else ""
    except RuntimeError:
        return ""


def jax_start(parameters: Any) -> tuple[Any, Any, Any, Any]:
    """The state (p, m, v, steps done) at the beginning, from pairs of weights and biases."""
    import jax
    import jax.numpy as jnp

    start = [(jnp.array(W), jnp.array(b)) for W, b in parameters]
    m, v = (jax.tree_util.tree_map(jnp.zeros_like, start) for _ in range(2))
    return start, m, v, jnp.zeros((), jnp.float32)


def jax_step(state: Any, X: Any, y: Any, index: Any, lr: Any = LR) -> tuple[Any, Any]:
    """(state, loss) after a step on the rows `index`, Adam written out; see `jax_start`."""
    import jax
    import jax.numpy as jnp

    def loss_of(parameters: Any, rows: Any, targets: Any) -> Any:
        for W, b in parameters[:-1]:
            rows = jax.nn.relu(rows @ W + b)
        W, b = parameters[-1]
        log_p = jax.nn.log_softmax(rows @ W + b)
        return -jnp.take_along_axis(log_p, targets[:, None], axis=1).mean()

    p, m, v, t = state
    loss, g = jax.value_and_grad(loss_of)(p, X[index], y[index])
    t = t + 1
    tree = jax.tree_util.tree_map
    m = tree(lambda a, b: 0.9 * a + 0.1 * b, m, g)
    v = tree(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
    c1, c2 = 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
    p = tree(lambda a, b, c: a - lr * c1 * b / (jnp.sqrt(c2 * c) + EPS), p, m, v)
    return (p, m, v, t), loss


def with_jax(task: Task, scan: bool, device: str = "cpu", precision: str = "float32") -> Epoch:
    """JAX, jitted: one `lax.scan` over the steps of an epoch, or else one call for each step.

    A single step takes its rows from the epoch's order on the device and adds its loss to a sum there, so the
    host sends nothing between two steps and waits only for the epoch's sum.  On a GPU, JAX would use TF32 for
    float32 unless told otherwise.
    """
    import jax
    import jax.numpy as jnp

    place = jax.devices("cpu" if device == "cpu" else "gpu")[0]
    products_of = functools.partial(jax.default_matmul_precision, _JAX_PRODUCTS[precision])

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state: Any, X: Any, y: Any, order: Any) -> tuple[Any, Any]:
        state, losses = jax.lax.scan(lambda held, index: jax_step(held, X, y, index), state, order)
        return state, losses.sum()

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def one(state: Any, total: Any, place: Any, X: Any, y: Any, order: Any) -> tuple[Any, Any, Any]:
        state, loss = jax_step(state, X, y, order[place])
        return state, total + loss, place + 1

    def one_by_one(state: Any, X: Any, y: Any, order: Any) -> tuple[Any, Any]:
        total, number = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        for _ in range(task.steps):
            state, total, number = one(state, total, number, X, y, order)
        return state, total

    with jax.default_device(place):
        X, y = jnp.asarray(task.X), jnp.asarray(task.y.astype(np.int32))
        held = [jax_start(task.parameters)]

    def epoch(number: int) -> float:
        with jax.default_device(place), products_of():
            order = jnp.asarray(task.order(number).astype(np.int32).reshape(task.steps, task.batch))
            held[0], total = (run if scan else one_by_one)(held[0], X, y, order)
            return float(total) / task.steps

    return after_warm_up(epoch)


# ---- Keras, thinc, scikit-learn ----------------------------------------------------------------------------
def with_keras(task: Task) -> Epoch:
    """Keras, `fit` for one epoch on rows that have been put in the epoch's order, which is timed too.

    `fit` draws no given order itself; one gather of all rows costs no more than one for each step.  Keras
    adds eps to the root of the uncorrected mean of squares (gpumlp's `eps_hat`), which does not matter with
    an eps of 1e-8.
    """
    os.environ["KERAS_BACKEND"] = KERAS  # read at the first import
    import keras

    dense = [keras.layers.Dense(n, activation="relu") for n in task.sizes[1:-1]]
    network = keras.Sequential([keras.Input((task.sizes[0],)), *dense, keras.layers.Dense(task.sizes[-1])])
    network.set_weights([a for pair in task.parameters for a in pair])
    network.compile(
        optimizer=keras.optimizers.Adam(LR, epsilon=EPS),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile="auto",
    )
    y = task.y.astype(np.int32)

    def epoch(number: int) -> float:
        order = task.order(number)
        history = network.fit(task.X[order], y[order], batch_size=task.batch, shuffle=False, verbose=0)
        return float(history.history["loss"][-1])

    return after_warm_up(epoch)


def with_thinc(task: Task) -> Epoch:
    """thinc with the matrix products of its own choice, and Adam without the clipping and averages it adds.

    The loss is written out, since thinc's is a sum of squared gradients.  eps is where Keras has it.
    """
    from thinc.api import Adam, Relu, Softmax_v2, chain

    pairs = list(zip(task.sizes[1:], task.sizes[:-1], strict=True))
    network = chain(*(Relu(*pair) for pair in pairs[:-1]), Softmax_v2(*pairs[-1])).initialize()
    for layer, (W, b) in zip(network.layers, task.parameters, strict=True):
        layer.set_param("W", W.T.copy())
        layer.set_param("b", b.copy())
    optimizer = Adam(LR, beta1=0.9, beta2=0.999, eps=EPS, L2=0.0, grad_clip=0.0, use_averages=False)
    rows = np.arange(task.batch)

    def epoch(number: int) -> float:
        total = 0.0
        for index in task.order(number).reshape(task.steps, task.batch):
            targets = task.y[index]
            p, backprop = network.begin_update(task.X[index])
            total -= float(np.log(p[rows, targets]).mean())
            p[rows, targets] -= 1
            p /= task.batch
            backprop(p)
            network.finish_update(optimizer)
        return total / task.steps

    return after_warm_up(epoch)


def with_sklearn(task: Task) -> Epoch:
    """MLPClassifier; each `partial_fit` is one epoch in its own row order."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        task.sizes[1:-1], alpha=0.0, batch_size=task.batch, learning_rate_init=LR, random_state=SEED
    )
    classes = np.arange(task.sizes[-1])

    def epoch(number: int) -> float:
        del number
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.partial_fit(task.X, task.y, classes=classes)
        return float(model.loss_)

    if task.sizes[-1] == 2:
        return after_warm_up(epoch)  # one sigmoid output there: a little less work, the same likelihood
    start = iter(task.parameters)

    def start_values(n_in: int, n_out: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        W, b = next(start)
        assert W.shape == (n_in, n_out) and W.dtype == dtype
        return W.copy(), b.copy()

    model._init_coef = start_values
    return after_warm_up(epoch)


# ---- all of them -------------------------------------------------------------------------------------------
class Peer(NamedTuple):
    """Its name in tables, the modules it needs, and what makes its epoch function."""

    title: str
    modules: tuple[str, ...]
    make: Callable[[Task], Epoch]


PEERS = {
    "torch": Peer("PyTorch", ("torch",), functools.partial(with_torch, compiled=False)),
    "torch-compile": Peer("PyTorch compiled", ("torch",), functools.partial(with_torch, compiled=True)),
    "jax": Peer("JAX scan", ("jax",), functools.partial(with_jax, scan=True)),
    "jax-step": Peer("JAX step", ("jax",), functools.partial(with_jax, scan=False)),
    "keras": Peer(f"Keras ({KERAS})", ("keras", KERAS), with_keras),
    "thinc": Peer("thinc", ("thinc",), with_thinc),
    "sklearn": Peer("scikit-learn", ("sklearn",), with_sklearn),
}


def missing(peer: str) -> str:
    """The first module that `peer` needs and that is not installed; "" if there is none."""
    return next((name for name in PEERS[peer].modules if importlib.util.find_spec(name) is None), "")


def installed(peer: str) -> bool:
    """Whether `peer` can be imported; says so on stderr if not."""
    if module := missing(peer):
        print(f"without {peer}: {module} is not installed", file=sys.stderr)
    return not module
