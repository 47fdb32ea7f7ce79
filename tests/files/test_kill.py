"""Processes that are killed or interrupted while they save: no file is lost, damaged or left behind.

GPUMLP_KILLS=1000 sets the number of kills of each test (12 by default).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp.files.atomic import replacing

KILLS = int(os.environ.get("GPUMLP_KILLS", "12"))
#: saves model and training again and again, each time after one more epoch
CHILD = """
import sys, numpy as np, gpumlp
trainer = gpumlp.Trainer.load("t.npz", device="numpy")
X = np.random.default_rng(0).normal(size=(40, 6))
def save(trainer, history):
    trainer.save("t.npz")
    print("saved", flush=True)
trainer.callbacks.append(save)
trainer.fit(X, np.arange(40) % 2, epochs=1_000_000, progress=False)
"""


def start(folder: Path) -> gpumlp.Trainer:
    """A training whose file takes a few milliseconds to write."""
    model = gpumlp.MLP([6, 300, 100, 2], "tanh", dropout=0.2, seed=3, device="numpy")
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", batch_size=16, seed=7)
    trainer.save(folder / "t.npz")
    return trainer


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_training_goes_on_to_the_bit(tmp_path, number):
    whole, draw = start(tmp_path), random.Random(int(number))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for _ in range(KILLS // 4):  # starting a process takes longer than all the rest
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
        )
        assert child.stdout.readline() == b"saved\n"
        time.sleep(draw.uniform(0, 0.03))
        child.send_signal(number)
        child.communicate(timeout=60)
        gpumlp.Trainer.load(tmp_path / "t.npz", device="numpy")
    resumed = gpumlp.Trainer.load(tmp_path / "t.npz", device="numpy")
    X = np.random.default_rng(0).normal(size=(40, 6))
    whole.fit(X, np.arange(40) % 2, epochs=resumed.epoch + 2, progress=False)
    resumed.fit(X, np.arange(40) % 2, epochs=2, progress=False)
    assert whole.epoch == resumed.epoch and np.array_equal(whole.model.flat, resumed.model.flat)
    resumed.save(tmp_path / "t.npz")
    assert os.listdir(tmp_path) == ["t.npz"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_saves_leave_nothing_for_long(tmp_path):
    path, draw, left = tmp_path / "f", random.Random(0), 0
    path.write_bytes(b"0" * 100_000)
    for _ in range(4 * KILLS):
        child = os.fork()
        if not child:
            try:
                for number in range(1, 1_000_000):
                    with replacing(path) as file:
                        file.write(b"%d" % (number % 10) * 100_000)
            finally:
                os._exit(1)
        time.sleep(draw.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = max(left, len(os.listdir(tmp_path)) - 1)
        data = path.read_bytes()
        assert len(data) == 100_000 and len(set(data)) == 1
    assert left <= 1  # each save removes what the kill before it left
    with replacing(tmp_path / "another") as file:
        file.write(b"")
    assert sorted(os.listdir(tmp_path)) == ["another", "f"]


def test_the_file_of_a_save_that_is_under_way_is_not_removed(tmp_path):
    with replacing(tmp_path / "a") as one:
        one.write(b"one")
        with replacing(tmp_path / "b") as other:  # as another process would
            other.write(b"other")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"] and (tmp_path / "a").read_bytes() == b"one"


def test_only_our_own_temporary_files_are_removed(tmp_path):
    others = [".x.tmp", ".m.npz.0123456789ab.tmp", "x.gpumlp-part", ".of-another-machine.gpumlp-part"]
    for name in (*others, ".old-of-another-machine.gpumlp-part"):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / ".old-of-another-machine.gpumlp-part", (0, 0))
    with replacing(tmp_path / "f"):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "f"])


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_an_interrupt_is_an_interrupt_wherever_it_comes(tmp_path):
    path, draw, hit = tmp_path / "m.npz", random.Random(0), 0
    models = [gpumlp.MLP([30, 40, 3], device="numpy", seed=seed) for seed in range(2)]
    models[0].save(path)

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, press)
    begin = time.perf_counter()
    models[0].save(path)
    took = time.perf_counter() - begin
    try:
        for number in range(10 * KILLS):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-5, 1.2 * took))
                    models[number % 2].save(path)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                hit += 1
            assert os.listdir(tmp_path) == ["m.npz"]
            found = gpumlp.load(path, "numpy").flat
            assert any(np.array_equal(found, model.flat) for model in models)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert hit


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", ["open", "fsync", "replace", "close"])
def test_an_interrupt_at_each_step(tmp_path, monkeypatch, step, before):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    real = getattr(os, step)

    def interrupted(*arguments: object, **more: object) -> object:
        if not before:
            real(*arguments, **more)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(os, step, interrupted)
        with replacing(path) as file:
            file.write(b"new")
        raise KeyboardInterrupt  # where the step is not taken at all
    replaced = step == "close" or (step == "replace" and not before)
    assert path.read_bytes() == (b"new" if replaced else b"old")
    assert os.listdir(tmp_path) == ["f"]
