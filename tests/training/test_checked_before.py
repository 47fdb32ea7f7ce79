"""`check=False`, and the loss of a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp

RNG = np.random.default_rng(5)
ROWS, LABELS, VALUES = RNG.normal(size=(40, 5)), RNG.integers(0, 3, 40), RNG.normal(size=(40, 3))


def trainer(device: str, loss: str = "softmax_cross_entropy", **more: Any) -> gpumlp.Trainer:
    model = gpumlp.MLP([5, 7, 3], device=device, dtype="float64")
    return gpumlp.Trainer(model, loss=loss, optimizer="adam", batch_size=8, **more)


@pytest.mark.parametrize("loss, y", [("softmax_cross_entropy", LABELS), ("squared_error", VALUES)])
def test_rows_that_were_checked_before(device: str, loss: str, y: Any) -> None:
    """The same bits as with a look at them."""
    made = []
    for check in (True, False):
        t = trainer(device, loss)
        t.fit(ROWS, y, epochs=2, validation=(ROWS[:9], y[:9]), check=check, progress=False)
        t.step(ROWS, y, check=check)
        figures = t.evaluate(ROWS, y, check=check)
        made.append((figures, t.history["val_loss"], t.loss_and_grads(ROWS, y, check=check)[0]))
        made[-1] += (t.model.backend.to_numpy(t.model.flat).tobytes(),)
    assert made[0] == made[1]


def test_what_is_not_looked_at(device: str) -> None:
    bad, t = ROWS.copy(), trainer(device, "squared_error")
    bad[3, 2] = np.nan
    assert np.isnan(t.loss_and_grads(bad, VALUES, check=False)[0])
    assert np.isnan(t.evaluate(ROWS, np.where(VALUES > 1, np.nan, VALUES), check=False)["loss"])
    with pytest.raises(gpumlp.DivergenceError):
        t.fit(bad, VALUES, epochs=1, check=False, progress=False)
    t = trainer(device)
    for call in (t.step, t.evaluate, t.loss_and_grads):  # kernels index by class numbers
        with pytest.raises(ValueError, match="class numbers from 1 to 3"):
            call(ROWS, LABELS * 0 + np.arange(40) % 3 + 1, check=False)
        with pytest.raises(ValueError, match=r"X contains nan \(row 3, column 2"):
            call(bad, LABELS)
        with pytest.raises((ValueError, TypeError), match="check"):
            call(ROWS, LABELS, check="no")


def test_the_loss_of_a_step(device: str) -> None:
    """Before the update, weighted, without penalties."""
    w = RNG.uniform(0.1, 2, 40)
    t, plain = trainer(device, l2=0.3), trainer(device)
    assert t.step(ROWS, LABELS) is None
    for _ in range(2):
        expected = t.evaluate(ROWS, LABELS, w)["loss"]
        found = t.step(ROWS, LABELS, w, loss=True)
        assert found.shape == () and found.dtype == np.float64
        assert float(found) == pytest.approx(expected, rel=1e-12)
    kept = plain.step(ROWS, LABELS, loss=True)
    first = float(kept)
    plain.step(2 * ROWS, LABELS, loss=True)
    assert float(kept) == first  # not a view of a buffer
