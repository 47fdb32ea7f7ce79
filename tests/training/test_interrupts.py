"""Exceptions in the middle of an epoch: parameters, number of steps and files stay consistent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import Backend
from gpumlp.rows import epoch_order

ROWS, BATCH = 70, 8
X = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def _trainer(device: str) -> gpumlp.Trainer:
    model = gpumlp.MLP([6, 8, 2], dropout=0.2, seed=1, device=device)
    return gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", batch_size=BATCH)


def _flat(trainer: gpumlp.Trainer) -> np.ndarray:
    return trainer.model.backend.to_numpy(trainer.model.flat)


class _Pressed:
    """Ends plans of full batches after `steps` steps in all, as Ctrl-C between two of them would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, backend: Backend, steps: int) -> None:
        self.left = steps
        record = backend.record

        def recorded(ops: Any, given: Any) -> Any:
            plan = record(ops, given)
            run = plan.run

            def limited(n: int = 1) -> None:
                if n == 1:  # the end of an epoch, or its last batch
                    return run(n)
                run(min(n, self.left))
                self.left -= min(n, self.left)
                if not self.left:
                    raise KeyboardInterrupt
                return None

            monkeypatch.setattr(plan, "run", limited, raising=False)
            return plan

        monkeypatch.setattr(backend, "record", recorded)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 7, 13])
def test_the_steps_that_were_done_are_counted(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, streaming: bool
) -> None:
    trainer = _trainer(device)
    with monkeypatch.context() as patch:
        _Pressed(patch, trainer.model.backend, steps)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(X, Y, epochs=5, streaming=streaming)
    # the other steps are those of last batches, whose plans were not ended
    done, per_epoch = trainer.optimizer.t, -(-ROWS // BATCH)
    assert done >= steps and trainer.epoch == done // per_epoch
    # the same steps, one at a time
    other = _trainer(device)
    for number in range(done):
        epoch, place = divmod(number, per_epoch)
        rows = epoch_order(0, epoch, ROWS)[place * BATCH : (place + 1) * BATCH]
        other.step(X[rows], Y[rows])
    np.testing.assert_array_equal(_flat(trainer), _flat(other))

    trainer.save(tmp_path / "t.npz")
    again = gpumlp.Trainer.load(tmp_path / "t.npz", device=device)
    for each in (trainer, again):
        each.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(_flat(trainer), _flat(again))


def test_state_without_steps_is_kept(device: str, tmp_path: Path) -> None:
    """An interrupt may come before the first step has been counted."""
    trainer = _trainer(device)
    trainer.step(X, Y)
    trainer.optimizer.t = 0
    trainer.save(tmp_path / "t.npz")
    again = gpumlp.Trainer.load(tmp_path / "t.npz", device=device)
    for each in (trainer, again):
        each.fit(X, Y, epochs=1)
    np.testing.assert_array_equal(_flat(trainer), _flat(again))


def test_native_counts_what_was_done_when_the_interrupt_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C that comes during a replay is raised as soon as it is over."""
    try:
        backend = gpumlp.get_backend("native")
    except gpumlp.DeviceError as error:
        pytest.skip(str(error))
    trainer = _trainer("native")
    record = backend.record

    def recorded(ops: Any, given: Any) -> Any:
        plan: Any = record(ops, given)
        runtime = plan.runtime

        class Interrupted:
            def replay(self, *arguments: Any) -> None:
                runtime.replay(*arguments)
                raise KeyboardInterrupt

        plan.runtime = Interrupted()
        return plan

    with monkeypatch.context() as patch:
        patch.setattr(backend, "record", recorded)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(X, Y, epochs=1)
    assert trainer.optimizer.t == 1  # the first burst is one step
    other, rows = _trainer("native"), epoch_order(0, 0, ROWS)[:BATCH]
    other.step(X[rows], Y[rows])
    np.testing.assert_array_equal(_flat(trainer), _flat(other))


def test_divergence_counts_the_steps(device: str) -> None:
    trainer = _trainer(device)
    trainer.optimizer.lr = 1e38
    with pytest.raises(gpumlp.DivergenceError):
        trainer.fit(X, Y, epochs=1)
    assert trainer.optimizer.t == -(-ROWS // BATCH)
