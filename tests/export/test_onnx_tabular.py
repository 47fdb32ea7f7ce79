"""Exported estimators of tables take raw columns, and answer as ours do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")

#: float32 probabilities, and values of size 1
WITHIN = {"rtol": 1e-6, "atol": 2e-6}


def run(model: Any, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {}
    for part in session.get_inputs():
        values = columns[part.name]
        if part.type == "tensor(string)":
            values = np.array(["" if v is None else str(v) for v in values.tolist()], object)
        elif values.dtype.kind == "M":
            seconds = values.astype("datetime64[us]").astype(np.int64) / 1e6
            values = np.where(np.isnat(values), np.nan, seconds)
        else:
            values = values.astype(np.float64)
        given[part.name] = values[:, None]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


def table(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    b = rng.normal(size=n) * 1000 + 1e6
    b[rng.random(n) < 0.2] = np.nan
    day = np.datetime64("1969-11-03T05:00") + rng.integers(0, 90_000_000, n).astype("timedelta64[m]")
    day[rng.random(n) < 0.1] = np.datetime64("NaT")
    towns = np.array(["Paris", "Rome", "Oslo", "", "München", None], object)
    return {
        "a": rng.normal(size=n),
        "b €": b,
        "count": rng.integers(0, 5, n),
        "town": towns[rng.choice([0, 1, 2, 4, 5], n)],
        "code": np.array([f"k{k}" for k in rng.integers(0, 120, n)], object),
        "flag": rng.random(n) < 0.4,
        "day": day,
    }


def target(X: dict[str, np.ndarray]) -> np.ndarray:
    month = (X["day"].astype("datetime64[M]").astype(int) % 12).astype(float)
    return X["a"] + (X["town"] == "Paris") + np.where(np.isnan(X["b €"]), 0, 0.5) + 0.05 * month


@pytest.mark.parametrize("quality", ["fast", "medium"])
def test_classifier(quality: str) -> None:
    X, new = table(400), table(300, 1)
    new["town"][:5] = "Atlantis"  # not seen in training
    y = np.array(["low", "middle", "high"])[np.digitize(target(X), [0.3, 1.2])]
    est = gpumlp.TabularClassifier(quality=quality, n_networks=3, random_state=0, device="cpu").fit(X, y)
    answer = run(gpumlp.export.to_onnx(est), new)
    np.testing.assert_allclose(answer["probabilities"], est.predict_proba(new), **WITHIN)
    np.testing.assert_array_equal(answer["label"], est.predict(new))


def test_regressor() -> None:
    X, new = table(400), table(300, 1)
    est = gpumlp.TabularRegressor(quality="fast", random_state=0, device="cpu").fit(X, target(X) * 50 + 1000)
    value = run(gpumlp.export.to_onnx(est), new)["value"]
    assert value.shape == (300,)
    np.testing.assert_allclose(value, est.predict(new), rtol=2e-6)


def test_dates_by_the_calendar() -> None:
    """Every day of many years, leap years and those before 1970 included."""
    days = np.datetime64("1895-01-01") + np.arange(0, 80_000, 13).astype("timedelta64[D]")
    X = {"day": days.astype("datetime64[us]") + np.arange(len(days)) * np.timedelta64(977, "s")}
    y = (days.astype("datetime64[D]") - days.astype("datetime64[Y]")).astype(float)
    est = gpumlp.TabularRegressor(quality="fast", random_state=0, device="cpu").fit(X, y)
    np.testing.assert_allclose(
        run(gpumlp.export.to_onnx(est), X)["value"], est.predict(X), rtol=1e-5, atol=1e-3
    )
