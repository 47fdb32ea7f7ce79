"""Clusters on this machine, and networks to compare theirs with."""

from __future__ import annotations

from typing import Any

import numpy as np
from distributed import Client

import gpumlp
from gpumlp.distributed import Alone


def workers(n: int) -> Client:
    """A client of a new cluster of `n` processes, with a thread each and without a dashboard."""
    return Client(n_workers=n, threads_per_worker=1, dashboard_address=None)


def rows(n: int = 403) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features float32 (n, 5), numbers of three classes, and weights."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3), rng.uniform(0.5, 2, n)


def alone(X: Any, y: Any, w: Any, outputs: int, loss: str, device: str = "cpu", **fit: Any) -> Any:
    """(bytes of the parameters, losses) of one process that does what the estimators of `settings` do."""
    model = gpumlp.MLP([X.shape[1], 9, outputs], dropout=0.2, seed=4, dtype=X.dtype, device=device)
    optimizer = gpumlp.Adam(lr=0.01)
    trainer = gpumlp.Trainer(
        model, loss=loss, optimizer=optimizer, batch_size=64, l2=0.064 / 64, seed=4, communicator=Alone()
    )
    history = trainer.fit(X, y, sample_weight=w, progress=False, **fit)
    return model.to("cpu").flat.tobytes(), history.loss


def settings(**more: Any) -> dict[str, Any]:
    """Of an estimator; see `alone`."""
    given = {"hidden_layer_sizes": (9,), "dropout": 0.2, "learning_rate_init": 0.01, "batch_size": 64}
    return {**given, "alpha": 0.064, "random_state": 4, "max_iter": 3, "device": "cpu", **more}


def result(estimator: Any) -> Any:
    """As `alone`."""
    return estimator.model_.flat.tobytes(), estimator.history_.loss
