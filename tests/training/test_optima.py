"""Linear models trained to their optimum: closed forms and scikit-learn's solvers."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import close

import gpumlp


def linear_data(rows: int = 60, inputs: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(rows, inputs)) + 0.3
    w = np.array([2.0, -1.0, 0.5, 0.0, 0.0, 0.02])[:inputs]
    return X, X @ w + 1.5 + 0.1 * rng.normal(size=rows)


def train(
    device: str, X: np.ndarray, y: np.ndarray, epochs: int, optimizer: gpumlp.SGD, **kw: object
) -> gpumlp.MLP:
    outputs = int(y.max()) + 1 if y.dtype.kind == "i" else 1
    loss = "softmax_cross_entropy" if outputs > 1 else "squared_error"
    model = gpumlp.MLP([X.shape[1], outputs], device=device, dtype="float64")
    trainer = gpumlp.Trainer(model, loss=loss, optimizer=optimizer, batch_size=len(X), **kw)  # type: ignore[arg-type]
    trainer.fit(X, y, epochs=epochs, progress=False)
    return model


@pytest.mark.cuda_sample(2)
@pytest.mark.parametrize("l2", [0.05, 0.0, 2.0])
def test_ridge(device: str, l2: float) -> None:
    """(X'X / n + l2 I) w = X'y / n on centred data: the bias is not penalised."""
    X, y = linear_data()
    Xc, yc, n = X - X.mean(axis=0), y - y.mean(), len(X)
    w = np.linalg.solve(Xc.T @ Xc / n + l2 * np.eye(X.shape[1]), Xc.T @ yc / n)
    b = y.mean() - X.mean(axis=0) @ w
    model = train(device, X, y, 400, gpumlp.SGD(lr=0.15, momentum=0.8), l2=l2)
    ((W, bias),) = model.get_parameters()
    close(W[:, 0], w, "optimum")
    close(bias[0], b, "optimum")


def test_weighted_ridge(device: str) -> None:
    X, y = linear_data()
    weight = np.random.default_rng(0).uniform(0, 3, len(X))
    weight[:5] = 0
    p, l2 = weight / weight.sum(), 0.1
    Xc, yc = X - p @ X, y - p @ y
    w = np.linalg.solve(Xc.T @ (p[:, None] * Xc) + l2 * np.eye(X.shape[1]), Xc.T @ (p * yc))
    model = gpumlp.MLP([X.shape[1], 1], device=device, dtype="float64")
    optimizer = gpumlp.SGD(lr=0.15, momentum=0.8)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=optimizer, l2=l2, batch_size=100)
    trainer.fit(X, y, epochs=400, sample_weight=weight, progress=False)
    close(model.get_parameters()[0][0][:, 0], w, "optimum")


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("alpha", [0.1, 0.01, 0.6])
def test_lasso(device: str, alpha: float) -> None:
    """scikit-learn minimises |y - Xw|^2 / (2 n) + alpha |w|: our squared error with l1 = alpha."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = linear_data()
    lasso = linear_model.Lasso(alpha=alpha, tol=1e-12, max_iter=100_000).fit(X, y)
    model = train(device, X, y, 800, gpumlp.SGD(lr=0.3), l1=alpha, proximal=True)
    ((W, bias),) = model.get_parameters()
    assert (lasso.coef_ == 0).any(), "a test without zeros shows nothing"
    assert ((W[:, 0] == 0) == (lasso.coef_ == 0)).all()
    close(W[:, 0], lasso.coef_, "optimum")
    close(bias[0], lasso.intercept_, "optimum")


@pytest.mark.cuda_sample(2)
@pytest.mark.parametrize("C", [10.0, 0.1])
def test_softmax_regression(device: str, C: float) -> None:
    """scikit-learn minimises C sum(loss) + |w|^2 / 2: the mean loss with l2 = 1 / (C n)."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_iris(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    exact = linear_model.LogisticRegression(C=C, tol=1e-12, max_iter=10_000).fit(X, y)
    model = train(device, X, y, 1500, gpumlp.SGD(lr=1.0, momentum=0.95, nesterov=True), l2=1 / (C * len(X)))
    ((W, b),) = model.get_parameters()
    close(W.T, exact.coef_, "optimum", scale=30)  # lbfgs stops at a gradient of about 1e-7
    close(b - b.mean(), exact.intercept_, "optimum", scale=30)
    assert (model.predict(X) == exact.predict(X)).all()
