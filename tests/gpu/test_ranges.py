"""Names of epochs, steps and forward passes in profilers."""

from __future__ import annotations

from typing import Any

import pytest
from trainers import trainer

import gpumlp


@pytest.fixture
def events(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is given to NVTX, in order; "end" closes a range."""
    from gpumlp.backends.cuda import backend as module

    seen: list[str] = []

    class Spy:
        RangePush = staticmethod(seen.append)

        @staticmethod
        def RangePop() -> None:
            seen.append("end")

    monkeypatch.setattr(module, "nvtx", Spy)
    return seen


def network() -> gpumlp.MLP:
    return gpumlp.MLP([64, 12, 10], device="cuda")


def test_ranges_of_fit_and_predict(events: list[str], digits: Any) -> None:
    X, y = digits
    t = trainer(network())
    t.fit(X, y, epochs=2, validation=(X, y))
    epochs = [
        ["gpumlp:epoch 1", "gpumlp:steps", "end", "gpumlp:evaluation", "end", "end"],
        ["gpumlp:epoch 2", "gpumlp:steps", "end", "gpumlp:evaluation", "end", "end"],
    ]
    assert events == [*epochs[0], *epochs[1]]
    events.clear()
    t.model.predict(X)
    assert events == ["gpumlp:forward", "end"]


def test_ranges_are_closed_by_errors(events: list[str], cuda: Any) -> None:
    with pytest.raises(ZeroDivisionError), cuda.range("gpumlp:x"):
        _ = 1 / 0
    assert events == ["gpumlp:x", "end"]


def test_without_nvtx(cuda: Any, digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpumlp.backends.cuda import backend as module

    monkeypatch.setattr(module, "nvtx", None)
    assert len(trainer(network()).fit(*digits, epochs=1)) == 1
