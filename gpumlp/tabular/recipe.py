"""The recipe: which networks are trained, with which settings; docs/recipe.md says where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["QUALITIES", "Settings", "settings_of"]

#: quality -> number of networks
QUALITIES = {"best": 24, "medium": 8, "fast": 1}

#: ranges that the settings of a pack's networks are drawn from
DEPTHS = (2, 3)
RATES = (2e-3, 8e-3)  # log-uniform
DECAYS = (3e-3, 0.2)  # log-uniform
NO_DROPOUT, DROPOUT = 1 / 3, (0.0, 0.3)  # chance of none, else uniform
SCALES = (0.03, 1.0)  # of embeddings, log-uniform
WIDTH = 128
#: of one network alone; up to `SMALL` rows a smaller one, trained for at most so many epochs
ONE = {"dropout": 0.1, "lr": 4e-3, "weight_decay": 0.02}
SMALL, SMALL_HIDDEN, SMALL_EPOCHS = 500, (64, 64), 60
ONE_SCALE, ONE_MOST = 0.2, 50  # of its embedding; more numbers stay numbers
AVERAGE = 0.99  # of the weights
_RANDOM_ROWS = 10  # labels are smoothed as if so many further rows had labels drawn at random
SIZE, FREQUENCIES = 16, 24
_WIDEST = 1024  # inputs that embeddings of numbers make together, about
_STEPS = 2500  # of a network with a falling rate


@dataclass(frozen=True)
class Settings:
    """Of one network."""

    hidden: tuple[int, ...]
    activation: str
    dropout: float
    lr: float
    weight_decay: float
    schedule: str | None
    batch_size: int
    epochs: int
    patience: int
    seed: int
    #: of the weights' moving average, see `gpumlp.Trainer`; 0: none
    average: float = 0.0
    #: of the labels; of targets that are no classes: nothing
    smoothing: float = 0.0
    #: arguments of `gpumlp.Embedding` for numbers; None: numbers stay numbers
    embedding: Mapping[str, Any] | None = None

    def summary(self) -> dict[str, Any]:
        """Those that differ between networks."""
        names = ("hidden", "dropout", "lr", "weight_decay", "seed", "embedding")
        return {name: getattr(self, name) for name in names}


#: so few rows are trained on together, without validation rows
FEW = 50


def batch_size(n_rows: int) -> int:
    """Rows of a step: 1/64 of the rows, as a power of two from 32 to 1024; all rows where they are few."""
    if n_rows <= FEW:
        return 256
    return int(np.clip(2 ** round(np.log2(n_rows / 64)), 32, 1024))


def settings_of(quality: str, networks: int, n_rows: int, n_numbers: int, seed: int) -> list[Settings]:
    """Settings of each network.

    Parameters
    ----------
    quality : str
        Of `QUALITIES`.
    networks : int
    n_rows : int
        Training rows of a network.
    n_numbers : int
        Inputs that may be embedded.
    seed : int
        Of what is drawn; network k does not depend on how many there are.
    """
    batch = batch_size(n_rows)
    if n_rows <= FEW:  # without dropout: a row that is there twice is one of weight 2
        return [
            Settings((64, 64), "silu", 0.0, 5e-3, 0.02, "cosine", batch, 100, 100, seed + k)
            for k in range(networks)
        ]
    epochs = int(np.clip(_STEPS * batch // n_rows, 10, 120))
    same = {
        "activation": "silu",
        "schedule": "cosine",
        "average": AVERAGE,
        "smoothing": _RANDOM_ROWS / (n_rows + _RANDOM_ROWS),
        "batch_size": batch,
        "epochs": epochs,
        "patience": epochs,
    }
    if networks == 1 or quality == "fast":
        one = same | ONE | {"embedding": _embedding(n_numbers, ONE_SCALE, ONE_MOST), "hidden": (WIDTH,) * 3}
        if n_rows <= SMALL:
            epochs = min(epochs, SMALL_EPOCHS)
            one |= {"hidden": SMALL_HIDDEN, "epochs": epochs, "patience": epochs}
        return [Settings(seed=seed + k, **one) for k in range(networks)]
    drawn = (_drawn(np.random.default_rng([seed, k]), n_numbers) for k in range(networks))
    return [Settings(seed=seed + k, **own, **same) for k, own in enumerate(drawn)]


def _drawn(rng: np.random.Generator, n_numbers: int) -> dict[str, Any]:
    """What differs between networks."""

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    depth = int(rng.integers(DEPTHS[0], DEPTHS[1] + 1))
    lr, decay, scale = log_uniform(*RATES), log_uniform(*DECAYS), log_uniform(*SCALES)
    return {
        "hidden": (WIDTH,) * depth,
        "lr": lr,
        "weight_decay": decay,
        "dropout": 0.0 if rng.random() < NO_DROPOUT else float(rng.uniform(*DROPOUT)),
        "embedding": _embedding(n_numbers, scale),
    }


def _embedding(n_numbers: int, scale: float, most: int = _WIDEST // 2) -> dict[str, Any] | None:
    if not 0 < n_numbers <= most:
        return None
    size = min(SIZE, max(2, _WIDEST // n_numbers))
    return {"kind": "periodic", "size": size, "scale": scale, "frequencies": FREQUENCIES}
