"""Compare the optimisers on NASA's airfoil data with a linear model, as chapter 12 of d2l.ai does.

Input: an .npz file with the arrays X (1503, 5) (frequency, angle of attack, chord length, velocity,
thickness) and y (1503,) (sound pressure level).  Source: the data set "Airfoil Self-Noise" of the UCI Machine
Learning Repository.  All six columns are standardised over all rows, the
first 1,500 rows are kept; the model is trained for 4 epochs in batches of 10 on half the mean squared error,
which is also what the table shows, over those 1,500 rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from scripts.shared.command import check_writable, command_line, default, load_npz, one_line_errors, whole
from scripts.shared.show import COLORS, pyplot, table, whole_ticks

ROWS = 1500


def rules() -> dict[str, gpumlp.optimizers.Optimizer]:
    """Title -> optimiser; the textbook's learning rates."""
    return {
        "SGD, lr 0.05": gpumlp.SGD(lr=0.05),
        "momentum 0.9, lr 0.005": gpumlp.SGD(lr=0.005, momentum=0.9),
        "AdaGrad, lr 0.1": gpumlp.AdaGrad(lr=0.1),
        "RMSProp 0.9, lr 0.01": gpumlp.RMSProp(lr=0.01, rho=0.9),
        "Adam, lr 0.01": gpumlp.Adam(lr=0.01),
    }


def prepare(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised (X, y) of the first 1,500 rows, float64."""
    columns = np.column_stack([X, y]).astype(np.float64)
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return columns[:ROWS, :-1], columns[:ROWS, -1]


def optimum(X: np.ndarray, y: np.ndarray) -> float:
    """Half the mean squared error of the least-squares solution."""
    A = np.column_stack([X, np.ones(len(X))])
    w = np.linalg.lstsq(A, y, rcond=None)[0]
    return float(np.mean((A @ w - y) ** 2) / 2)


def train(
    X: np.ndarray, y: np.ndarray, optimizer: gpumlp.optimizers.Optimizer, args: argparse.Namespace
) -> dict[str, Any]:
    """{"loss": half-MSE over all rows, before training and after each epoch, "seconds": per epoch}."""
    model = gpumlp.MLP([X.shape[1], 1], init="normal", seed=args.seed, device=args.device)
    trainer = gpumlp.Trainer(
        model, loss="squared_error", optimizer=optimizer, batch_size=args.batch_size, seed=args.seed
    )
    first = trainer.evaluate(X, y)["loss"]
    history = trainer.fit(X, y, epochs=args.epochs, validation=(X, y), progress=False)
    return {"loss": [first, *history.val_loss], "seconds": float(np.mean(history.seconds))}


def draw(results: dict[str, dict[str, Any]], best: float, file: str) -> None:
    """Distance from the optimum by epoch."""
    plt = pyplot()
    figure, ax = plt.subplots(figsize=(6, 3.8))
    for number, (title, result) in enumerate(results.items()):
        excess = np.array(result["loss"]) - best
        ax.plot(range(len(excess)), excess, "o-", ms=4.5, color=COLORS[number], label=title)
    ax.set(
        yscale="log",
        xlabel="epoch",
        ylabel="half mean squared error above the optimum",
        title=f"Airfoil self-noise, linear model (optimum {best:.4f})",
    )
    whole_ticks(ax)
    ax.legend()
    figure.savefig(file)
    plt.close(figure)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train with every rule, print the table; returns {"optimum": float, title: {"loss", "seconds"}}."""
    parser = command_line(__doc__, data=True)
    parser.add_argument("--epochs", type=whole, default=4, help=default())
    parser.add_argument("--batch-size", type=whole, default=10, help=default())
    parser.add_argument("--seed", type=int, default=0, help=default())
    parser.add_argument("--plot", metavar="FILE", help="draw the losses")
    args = parser.parse_args(argv)
    check_writable(args.plot)
    data = load_npz(args.path, ("X", "y"))
    X, y = prepare(data["X"], data["y"])
    best = optimum(X, y)
    results = {title: train(X, y, rule, args) for title, rule in rules().items()}
    header = ["rule", "start", *(f"epoch {n}" for n in range(1, args.epochs + 1)), "s/epoch"]
    rows = [[t, *(f"{v:.4f}" for v in r["loss"]), f"{r['seconds']:.4f}"] for t, r in results.items()]
    print(f"half the mean squared error over {len(X):,} rows; least squares reaches {best:.4f}\n")
    print(table(header, rows))
    if args.plot:
        draw(results, best, args.plot)
        print(f"drawn to {args.plot}")
    return {"optimum": best, **results}


if __name__ == "__main__":
    main()
