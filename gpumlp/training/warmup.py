"""Compiling kernels ahead of the first training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends import Backend, get_backend
from gpumlp.losses import get_loss
from gpumlp.model import MLP
from gpumlp.training.trainer import Trainer

__all__ = ["warmup"]

# sums over a data set are taken in two stages, whose form depends on its size: this one stands for 3,000 to
# 500,000 rows
_ROWS, _BATCH = 20480, 16384
_CLASSES = 10


def warmup(
    dtype: Any = "float32",
    device: str | Backend = "auto",
    *,
    precision: str = "float32",
    losses: Sequence[str] = ("softmax_cross_entropy", "squared_error"),
    activations: Sequence[str] = ("relu",),
    optimizers: Sequence[str] = ("adam", "sgd"),
) -> dict[str, float]:
    """Compile and load the kernels of common trainings, by training tiny networks on zeros.

    CuPy keeps compiled kernels on disk, so this takes seconds once per machine and milliseconds later.

    Parameters
    ----------
    dtype : str
        Type of the models: "float32" or "float64".
    device : str
        "cuda", "cuda:1"; "auto" does nothing where a training would run on the CPU, which has nothing to
        compile ahead.
    precision, losses, activations, optimizers
        What is going to be used, as for `Trainer` and `MLP`.

    Returns
    -------
    dict of str -> float
        Name and seconds of each kernel that was compiled or loaded by this call; empty if all of them were,
        or "auto" is the CPU.

    Raises
    ------
    gpumlp.DeviceError
        The device cannot be used.
    ValueError
        A named device is not a CUDA device, or a name is unknown.
    """
    backend = get_backend(device)
    if backend.name != "cuda":
        if isinstance(device, str) and device.strip().lower() == "auto":
            return {}
        raise ValueError(f"device={device!r}; warmup compiles CUDA kernels, give 'cuda' or 'cuda:<number>'")
    seconds: dict[str, float] = backend.load_seconds  # type: ignore[attr-defined]
    before = dict(seconds)
    settings = [(loss, activations[0], optimizers[0]) for loss in losses]
    settings += [(losses[0], name, optimizers[0]) for name in activations[1:]]
    settings += [(losses[0], activations[0], name) for name in optimizers[1:]]
    X = np.zeros((_ROWS, 16), dtype)
    for loss, activation, optimizer in settings:
        kind, constant = get_loss(loss)
        classes = kind.classes
        y = np.arange(_ROWS) % _CLASSES if classes else np.zeros(_ROWS)
        model = MLP(
            [16, 16, _CLASSES if classes else len(constant) if kind.levels else 1],
            activation,
            dtype=dtype,
            device=backend,
        )
        trainer = Trainer(model, loss=loss, optimizer=optimizer, batch_size=_BATCH, precision=precision)
        trainer.fit(X, y, epochs=1, validation=(X, y), progress=False)
        model.predict(X)
    backend.synchronize()
    return {name: s - before.get(name, 0.0) for name, s in seconds.items() if s != before.get(name)}
