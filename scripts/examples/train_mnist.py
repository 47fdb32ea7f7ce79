"""Train a multilayer perceptron on MNIST.

Input: an .npz file with the arrays x_train (60000, 28, 28), y_train, x_test (10000, 28, 28), y_test: pixels
0 to 255 and digits 0 to 9.  Source: the MNIST database of handwritten digits of LeCun, Cortes and Burges; the
file mnist.npz that Keras loads is one.  Pixels are divided by 255.  The test set is looked at once, after
training.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from scripts.shared.command import check_writable, command_line, default, load_npz, one_line_errors, whole
from scripts.shared.show import pyplot, whole_ticks


def sizes(text: str) -> list[int]:
    """'256,128' -> [256, 128]; '' -> []."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected numbers such as 256,128") from None


def pixels(images: np.ndarray) -> np.ndarray:
    """(n, ...) of 0..255 -> float32 (n, pixels) of 0..1."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def show(trainer: gpumlp.Trainer, history: gpumlp.History) -> None:
    """Callback: one line per epoch."""
    last = {name: values[-1] for name, values in history.metrics.items()}
    held = f"  validation accuracy {last['val_accuracy']:.4f}" if "val_accuracy" in last else ""
    print(f"epoch {len(history):3d}  loss {last['loss']:.4f}{held}  {last['seconds']:.2f} s", flush=True)


def draw(history: gpumlp.History, accuracy: float, file: str) -> None:
    """Loss and accuracy by epoch."""
    plt = pyplot()
    epochs = range(1, len(history) + 1)
    held = "val_loss" in history.metrics
    figure, axes = plt.subplots(1, 2 if held else 1, figsize=(9 if held else 5, 3.4), squeeze=False)
    axes[0, 0].plot(epochs, history.loss, "o-", ms=4, label="training")
    axes[0, 0].set(xlabel="epoch", ylabel="cross-entropy", title="Loss", yscale="log")
    if held:
        axes[0, 0].plot(epochs, history.val_loss, "o-", ms=4, label="validation")
        axes[0, 1].plot(epochs, history.val_accuracy, "o-", ms=4, color="C1", label="validation")
        axes[0, 1].axhline(accuracy, color="0.3", ls="--", lw=1, label=f"test, at the end: {accuracy:.4f}")
        axes[0, 1].set(xlabel="epoch", ylabel="accuracy", title="Accuracy")
        axes[0, 1].legend()
    for ax in axes[0]:
        whole_ticks(ax)
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_line(__doc__, data=True)
    p.add_argument("--hidden", type=sizes, default=[256, 128], help="hidden layers (default 256,128)")
    p.add_argument(
        "--activation", default="relu", choices=sorted(gpumlp.activations.ACTIVATIONS), help=default()
    )
    p.add_argument("--epochs", type=whole, default=10, help=default())
    p.add_argument("--batch-size", type=whole, default=128, help=default())
    p.add_argument(
        "--optimizer", default="adam", choices=sorted(gpumlp.optimizers.OPTIMIZERS), help=default()
    )
    p.add_argument("--lr", type=float, default=1e-3, help=default("learning rate"))
    p.add_argument("--schedule", default="cosine", choices=sorted(gpumlp.schedules.SCHEDULES), help=default())
    p.add_argument("--dropout", type=float, default=0.0, help=default("on the hidden layers"))
    p.add_argument("--validation", type=float, default=0.0, help=default("fraction of rows to hold out"))
    p.add_argument("--seed", type=int, default=0, help=default())
    p.add_argument("--plot", metavar="FILE", help="draw the learning curves")
    return p


@one_line_errors
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train and test; returns {"accuracy", "loss" (both on the test set), "seconds", "history"}."""
    args = parser().parse_args(argv)
    check_writable(args.plot)
    data = load_npz(args.path, ("x_train", "y_train", "x_test", "y_test"))
    x_train, x_test = pixels(data["x_train"]), pixels(data["x_test"])
    y_train, y_test = (data[name].astype(np.int64) for name in ("y_train", "y_test"))
    classes = int(y_train.max()) + 1
    model = gpumlp.MLP(
        [x_train.shape[1], *args.hidden, classes],
        args.activation,
        dropout=args.dropout,
        seed=args.seed,
        device=args.device,
    )
    trainer = gpumlp.Trainer(
        model,
        loss="softmax_cross_entropy",
        optimizer=gpumlp.optimizers.OPTIMIZERS[args.optimizer](lr=args.lr),
        batch_size=args.batch_size,
        schedule=args.schedule,
        seed=args.seed,
        callbacks=[show],
    )
    names = "-".join(map(str, model.layer_sizes))
    print(f"{names}, {model.n_params:,} parameters, {len(x_train):,} rows, {model.backend.name} executor")
    start = time.perf_counter()
    history = trainer.fit(
        x_train, y_train, epochs=args.epochs, validation=args.validation or None, progress=False
    )
    seconds = time.perf_counter() - start
    figures = trainer.evaluate(x_test, y_test)
    print(f"test accuracy {figures['accuracy']:.4f}  test loss {figures['loss']:.4f}  {seconds:.1f} s")
    if args.plot:
        draw(history, figures["accuracy"], args.plot)
        print(f"drawn to {args.plot}")
    return {**figures, "seconds": seconds, "history": history}


if __name__ == "__main__":
    main()
