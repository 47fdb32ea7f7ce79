"""Time a training step of gpumlp beside PyTorch, JAX and scikit-learn, all with the same arithmetic.

float32, ReLU, softmax cross-entropy, Adam (lr 1e-3, eps 1e-8), the same start values, rows shuffled anew in
every epoch and gathered for each step.  Candidates take turns; each turn is one epoch to warm up and one that
is timed, set-up excluded, shuffling included.  All but scikit-learn draw the same row orders, so their losses
must agree closely; if they do not, the exit status is 1.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from _tools import (
    COLORS,
    backends,
    check_writable,
    duration,
    facts_line,
    interleave,
    load_at_start,
    machine,
    pyplot,
    simulated,
    summary,
    table,
    write_json,
)

import gpumlp
from gpumlp.inputs import epoch_order

#: layer sizes, batch, steps per epoch
SHAPES: tuple[tuple[tuple[int, ...], int, int], ...] = (
    ((32, 16, 2), 32, 300),
    ((8, 64, 64, 2), 256, 100),
    ((64, 128, 10), 64, 200),
    ((784, 256, 128, 10), 128, 50),
    ((784, 1024, 1024, 10), 256, 10),
)
PEERS = ("torch", "torch-compile", "jax", "sklearn")
LR, EPS, SEED = 1e-3, 1e-8, 0
#: how far a loss may be from the others': relatively, and in absolute terms
SAME_ORDER, OWN_ORDER = (0.02, 0.001), (0.25, 0.01)

Epoch = Callable[[], tuple[float, float]]


class Task:
    """Data and start values for one shape."""

    def __init__(self, sizes: Sequence[int], batch: int, steps: int) -> None:
        rng = np.random.default_rng(SEED)
        self.sizes, self.batch, self.steps = list(sizes), batch, steps
        self.X = rng.standard_normal((batch * steps, sizes[0]), np.float32)
        hidden = np.maximum(self.X @ rng.standard_normal((sizes[0], 16), np.float32), 0)
        self.y = (hidden @ rng.standard_normal((16, sizes[-1]), np.float32)).argmax(axis=1)
        start = gpumlp.MLP(self.sizes, seed=SEED, device="numpy")
        self.parameters = [
            (np.array(W), np.array(b)) for W, b in zip(start.weights, start.biases, strict=True)
        ]

    @property
    def name(self) -> str:
        """Sizes and batch, as 32-16-2 (32)."""
        return f"{'-'.join(map(str, self.sizes))} ({self.batch})"

    def order(self, epoch: int) -> np.ndarray:
        """Row order of an epoch, (n,) as gpumlp draws it."""
        return epoch_order(SEED, epoch, len(self.X))


# ---- candidates: each is a function that trains two epochs and gives (seconds, mean loss) of the second ----
def with_gpumlp(task: Task, backend: Any) -> Epoch:
    """The `Trainer`; the time between the ends of two epochs of one `fit`, so set-up is not in it."""
    model = gpumlp.MLP(task.sizes, seed=SEED, device=backend.name)
    stamps: list[float] = []
    trainer = gpumlp.Trainer(
        model,
        loss="softmax_cross_entropy",
        optimizer=gpumlp.Adam(lr=LR, eps=EPS),
        batch_size=task.batch,
        seed=SEED,
        callbacks=[lambda _trainer, _history: stamps.append(time.perf_counter())],
    )

    def pair() -> tuple[float, float]:
        stamps.clear()
        history = trainer.fit(task.X, task.y, epochs=2, progress=False)
        return stamps[1] - stamps[0], history.loss[-1]

    return pair


def _after_warm_up(epoch: Callable[[int], float]) -> Epoch:
    """Two epochs, of which the second is timed."""
    done = [0]

    def pair() -> tuple[float, float]:
        epoch(done[0])
        start = time.perf_counter()
        loss = epoch(done[0] + 1)
        seconds = time.perf_counter() - start
        done[0] += 2
        return seconds, loss

    return pair


def with_torch(task: Task, compiled: bool, device: str = "cpu") -> Epoch:
    """PyTorch with fused Adam; `compiled`: network and loss through torch.compile."""
    import torch

    layers: list[Any] = []
    for W, b in task.parameters:
        layer = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(W.T.copy()))
            layer.bias.copy_(torch.from_numpy(b))
        layers += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1]).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, eps=EPS, fused=True)
    X, y = torch.from_numpy(task.X).to(device), torch.from_numpy(task.y).to(device)

    def loss_of(rows: Any, targets: Any) -> Any:
        return torch.nn.functional.cross_entropy(network(rows), targets)

    objective = torch.compile(loss_of) if compiled else loss_of

    def epoch(number: int) -> float:
        order = torch.from_numpy(task.order(number).astype(np.int64)).to(device)
        total = torch.zeros((), device=device)
        for index in order.split(task.batch):
            optimizer.zero_grad(set_to_none=True)
            loss = objective(X[index], y[index])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total) / task.steps

    return _after_warm_up(epoch)


def with_jax(task: Task) -> Epoch:
    """JAX: one jitted `lax.scan` over the steps of an epoch, Adam written out."""
    import jax
    import jax.numpy as jnp

    X, y = jnp.asarray(task.X), jnp.asarray(task.y.astype(np.int32))

    def loss_of(parameters: Any, rows: Any, targets: Any) -> Any:
        for W, b in parameters[:-1]:
            rows = jax.nn.relu(rows @ W + b)
        W, b = parameters[-1]
        log_p = jax.nn.log_softmax(rows @ W + b)
        return -jnp.take_along_axis(log_p, targets[:, None], axis=1).mean()

    def step(state: Any, index: Any) -> tuple[Any, Any]:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p, X[index], y[index])
        t = t + 1
        tree = jax.tree_util.tree_map
        m = tree(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = tree(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        c1, c2 = 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
        p = tree(lambda a, b, c: a - LR * c1 * b / (jnp.sqrt(c2 * c) + EPS), p, m, v)
        return (p, m, v, t), loss

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state: Any, order: Any) -> tuple[Any, Any]:
        state, losses = jax.lax.scan(step, state, order)
        return state, losses.mean()

    start = [(jnp.array(W), jnp.array(b)) for W, b in task.parameters]
    zeros = [jax.tree_util.tree_map(jnp.zeros_like, start) for _ in range(2)]
    held = [(start, *zeros, jnp.zeros((), jnp.float32))]

    def epoch(number: int) -> float:
        order = jnp.asarray(task.order(number).astype(np.int32).reshape(task.steps, task.batch))
        held[0], loss = run(held[0], order)
        return float(loss)

    return _after_warm_up(epoch)


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
        return _after_warm_up(epoch)  # one sigmoid output there: a little less work, the same likelihood
    original = model._init_coef

    def start_values(n_in: int, n_out: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        for W, b in task.parameters:
            if W.shape == (n_in, n_out):
                return W.copy(), b.copy()
        return original(n_in, n_out, dtype)

    model._init_coef = start_values
    return _after_warm_up(epoch)


def candidates(task: Task, found: dict[str, Any], peers: Sequence[str]) -> dict[str, Epoch]:
    """Name -> epoch function, for all executors and installed peers."""
    made: dict[str, Epoch] = {}
    for name, backend in found.items():
        mark = " (simulated)" if name == "cuda" and simulated() else ""
        made[f"gpumlp {name}{mark}"] = with_gpumlp(task, backend)
    build: dict[str, tuple[str, Callable[[], Epoch]]] = {
        "torch": ("PyTorch", lambda: with_torch(task, False)),
        "torch-compile": ("PyTorch compiled", lambda: with_torch(task, True)),
        "jax": ("JAX scan", lambda: with_jax(task)),
        "sklearn": ("scikit-learn", lambda: with_sklearn(task)),
    }
    for key in peers:
        title, make = build[key]
        made[title] = make()
    if "torch" in peers and "cuda" in found and not simulated():
        import torch

        if torch.cuda.is_available():
            made["PyTorch cuda"] = with_torch(task, False, "cuda")
    return made


def installed(peer: str) -> bool:
    """Whether `peer` can be imported; says so on stderr if not."""
    module = {"sklearn": "sklearn", "jax": "jax"}.get(peer, "torch")
    if importlib.util.find_spec(module) is None:
        print(f"without {peer}: {module} is not installed", file=sys.stderr)
        return False
    return True


# ---- measuring ---------------------------------------------------------------------------------------------
def unlike(losses: dict[str, float], before: float) -> list[str]:
    """Lines about candidates whose last loss is not like the others', or has not fallen below `before`."""
    middle = statistics.median([loss for loss in losses.values() if math.isfinite(loss)] or [math.nan])
    lines = []
    for name, loss in losses.items():
        relative, absolute = OWN_ORDER if name == "scikit-learn" else SAME_ORDER
        if not abs(loss - middle) <= relative * middle + absolute:
            lines.append(f"{name}: loss {loss:.4f}, the others' median is {middle:.4f}")
        elif not loss < before:
            lines.append(f"{name}: loss {loss:.4f} has not fallen (untrained network: {before:.4f})")
    return lines


def measure(task: Task, found: dict[str, Any], peers: Sequence[str], repeats: int) -> dict[str, Any]:
    """{"shape", "rows": {candidate: {"seconds" per step, "spread", "loss"}}, "unlike": lines}."""
    epochs = candidates(task, found, peers)
    losses: dict[str, float] = {}

    def timed(name: str) -> float:
        seconds, losses[name] = epochs[name]()
        return seconds / task.steps

    for name in epochs:  # compiles and warms up
        timed(name)
    times = interleave({name: functools.partial(timed, name) for name in epochs}, repeats)
    rows = {
        name: {
            "seconds": summary(values)["median"],
            "spread": summary(values)["spread"],
            "loss": losses[name],
        }
        for name, values in times.items()
    }
    return {"shape": task.name, "rows": rows, "unlike": unlike(losses, math.log(task.sizes[-1]) * 1.5)}


def best_peer(rows: dict[str, Any]) -> float | None:
    """Seconds of the fastest candidate that is not gpumlp."""
    return min((r["seconds"] for name, r in rows.items() if not name.startswith("gpumlp")), default=None)


def show(result: dict[str, Any]) -> None:
    """The table of one shape."""
    rows = result["rows"]
    best = best_peer(rows)
    print(f"\n{result['shape']}")
    print(
        table(
            ["", "time per step", "spread", "x best peer", "loss"],
            [
                [
                    name,
                    duration(r["seconds"]),
                    f"{r['spread']:.0%}",
                    f"{r['seconds'] / best:.2f}" if best else "",
                    f"{r['loss']:.4f}",
                ]
                for name, r in sorted(rows.items(), key=lambda item: item[1]["seconds"])
            ],
        )
    )
    for line in result["unlike"]:
        print(f"NOT ALIKE  {line}")


def draw(results: list[dict[str, Any]], file: str) -> None:
    """Bars of the step time, one panel per shape."""
    plt = pyplot()
    names = list(dict.fromkeys(name for r in results for name in r["rows"]))
    size = (2.6 * len(results) + 1.2, 0.38 * len(names) + 1.2)
    figure, axes = plt.subplots(1, len(results), figsize=size, sharey=True, squeeze=False)
    for ax, result in zip(axes[0], results, strict=True):
        longest = max(row["seconds"] for row in result["rows"].values())
        unit, scale = ("ms", 1e-3) if longest >= 1e-3 else ("us", 1e-6)
        for place, name in enumerate(names):
            row = result["rows"].get(name)
            if row:
                color = COLORS[0] if name.startswith("gpumlp") else "0.65"
                ax.barh(place, row["seconds"] / scale, color=color)
                ax.text(
                    row["seconds"] / scale, place, f" {duration(row['seconds'])}", va="center", fontsize=8
                )
        ax.set(title=result["shape"], xlabel=f"{unit} per step")
        ax.set_yticks(range(len(names)), names)
        ax.margins(x=0.32)
        ax.grid(False, axis="y")
    axes[0, 0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def shape(text: str) -> tuple[tuple[int, ...], int, int]:
    """'32-16-2:32:300' -> sizes, batch, steps per epoch (left out: 100)."""
    parts = text.split(":")
    try:
        sizes = tuple(int(n) for n in parts[0].split("-"))
        numbers = [*(int(n) for n in parts[1:]), 100][:2]
        if len(sizes) < 2 or len(parts) not in (2, 3) or min(*sizes, *numbers) < 1:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected such as 32-16-2:32:300") from None
    return sizes, numbers[0], numbers[1]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns {"machine", "results"}."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", nargs="+", default=["all"], help="all, or some of numpy, native, cuda")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=["torch", "jax", "sklearn"],
        help="of torch, torch-compile, jax, sklearn (default: all but torch-compile)",
    )
    parser.add_argument(
        "--shapes", nargs="+", type=shape, default=SHAPES, help="sizes:batch[:steps], as 32-16-2:32:300"
    )
    parser.add_argument("--repeats", type=int, help="rounds (default 9; 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--plot", metavar="FILE", help="draw bars")
    args = parser.parse_args(argv)
    check_writable(args.json, args.plot)
    load = load_at_start()
    found = backends(args.device)
    repeats = args.repeats or (3 if args.quick else 9)
    peers = [peer for peer in args.peers if installed(peer)]
    results = []
    for sizes, batch, steps in args.shapes:
        results.append(measure(Task(sizes, batch, steps), found, peers, repeats))
        show(results[-1])
    facts = {**machine(), "load at start": load}
    print(f"\n{facts_line(facts)}")
    output = {"machine": facts, "results": results}
    if args.json:
        write_json(args.json, output)
    if args.plot:
        draw(results, args.plot)
    return output


if __name__ == "__main__":
    sys.exit(1 if any(r["unlike"] for r in main()["results"]) else 0)
