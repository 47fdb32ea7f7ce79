"""Ctrl-C during `gpumlp train`: what was learnt is kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import gpumlp


@pytest.fixture
def interrupt_in_epoch(monkeypatch):
    """interrupt_in_epoch(3): Ctrl-C while the third epoch is evaluated."""

    def prepare(number: int) -> None:
        real, seen = gpumlp.training.evaluation.ResidentEvaluation.run, []

        def counting(self):
            seen.append(self)
            if len(seen) == number:
                raise KeyboardInterrupt
            real(self)

        monkeypatch.setattr(gpumlp.training.evaluation.ResidentEvaluation, "run", counting)

    return prepare


def test_an_interrupt_in_the_first_epoch_saves_nothing(run, flowers, interrupt_in_epoch, tmp_path):
    interrupt_in_epoch(1)
    result = run("train", flowers, "--target", "kind", "--hidden", 8)
    assert result.code == 130 and "interrupted; nothing was saved" in result.err
    assert os.listdir(tmp_path) == ["flowers.csv"]


def test_an_interrupt_saves_what_was_learnt(run, flowers, interrupt_in_epoch, tmp_path):
    pytest.importorskip("matplotlib")
    interrupt_in_epoch(4)
    result = run("train", flowers, "--target", "kind", "--hidden", 8, "--out", "m.npz", "--plot", "p.png")
    assert result.code == 130
    assert result.err == "\ngpumlp: interrupted in epoch 4; the weights at that moment were saved to m.npz\n"
    assert "3 epochs in" in result.out and re.search(r"^test +18 ", result.out, re.M)
    assert gpumlp.load("m.npz", "cpu").extra["training"]["epochs"] == 3
    assert (tmp_path / "p.png").exists()


def test_an_interrupt_keeps_the_best_weights(run, flowers, interrupt_in_epoch):
    # a step of this size makes the loss of every later epoch worse
    words = ("--target", "kind", "--hidden", 8, "--optimizer", "sgd", "--early-stopping", 50, "--seed", 1)
    assert run("train", flowers, *words, "--lr", 0.05, "--epochs", 3, "--out", "a.npz").code == 0
    interrupt_in_epoch(4)
    result = run("train", flowers, *words, "--lr", 0.05, "--out", "b.npz")
    assert result.code == 130
    assert "interrupted in epoch 4; the weights of epoch 3 were saved to b.npz" in result.err
    a, b = (gpumlp.load(name, "cpu").get_parameters()[0][0] for name in ("a.npz", "b.npz"))
    np.testing.assert_array_equal(a, b)


def test_an_interrupt_after_the_training_saves_the_model(run, flowers, monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(gpumlp.Trainer, "evaluate", interrupt)
    result = run("train", flowers, "--target", "kind", "--epochs", 3, "--out", "m.npz")
    assert result.code == 130
    assert result.err == "\ngpumlp: interrupted after the training; the model was saved to m.npz\n"
    assert gpumlp.load("m.npz", "cpu").extra["training"]["epochs"] == 3


def test_a_second_interrupt_ends_at_once(run, flowers, interrupt_in_epoch, monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    interrupt_in_epoch(3)
    monkeypatch.setattr(gpumlp.Trainer, "evaluate", interrupt)
    result = run("train", flowers, "--target", "kind", "--hidden", 8)
    assert result.code == 130 and "interrupted; nothing was saved" in result.err
    assert os.listdir(tmp_path) == ["flowers.csv"]


def test_a_real_interrupt(tmp_path):
    words = [sys.executable, "-m", "gpumlp", "train", "--epochs", "1000000", "--quiet", "--hidden", "8"]
    words += ["--out", "m.npz", "--device", "cpu"]
    watch = (
        "import gpumlp.training.evaluation as s, signal, os\nreal, seen = s.ResidentEvaluation.run, []\n"
        "def run(self):\n    real(self)\n    seen.append(1)\n"
        "    if len(seen) == 5: os.kill(os.getpid(), signal.SIGINT)\n"
        "s.ResidentEvaluation.run = run\nfrom gpumlp.cli import main\nraise SystemExit(main())"
    )
    words[1:3] = ["-c", watch]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert "gpumlp: interrupted in epoch 5; the weights at that moment were saved to m.npz" in done.stderr
    assert gpumlp.load(tmp_path / "m.npz", "cpu").extra["training"]["epochs"] == 4
