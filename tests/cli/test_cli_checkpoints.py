"""`gpumlp train --checkpoint --every --resume`: what was ended goes on, to the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp.cli import checkpoints

WORDS = ("--target", "kind", "--hidden", "12,6", "--dropout", "0.2", "--schedule", "cosine", "--epochs", 7)
KEEP = ("--checkpoint", "c.npz", "--every", 2)


@pytest.fixture
def ended_after(monkeypatch):
    """ended_after(4): the training ends, as if killed, when the checkpoint after epoch 4 has been written."""

    class Killed(BaseException):
        pass

    def prepare(epoch: int) -> type[BaseException]:
        keep = checkpoints.Checkpoints.keep

        def ending(self, trainer, history):
            keep(self, trainer, history)
            if trainer.epoch == epoch:
                raise Killed

        monkeypatch.setattr(checkpoints.Checkpoints, "keep", ending)
        return Killed

    return prepare


@pytest.fixture
def begun(run, flowers, ended_after, monkeypatch):
    """A checkpoint after epoch 4, c.npz."""
    with pytest.raises(ended_after(5)):
        run("train", flowers, *WORDS, *KEEP)
    monkeypatch.undo()
    monkeypatch.chdir(flowers.parent)
    assert gpumlp.Trainer.load("c.npz", "cpu").epoch == 4


def test_resumed_it_is_the_whole_training_to_the_bit(run, flowers, begun):
    whole = run("train", flowers, *WORDS, "-o", "whole.npz")
    assert whole.code == 0
    for _ in range(2):  # the second time nothing is left to train
        resumed = run("train", flowers, *WORDS, *KEEP, "--resume", "-o", "resumed.npz")
        assert resumed.code == 0, resumed.err
        assert "done      7 epochs" in resumed.out
        a, b = (gpumlp.load(name, "cpu") for name in ("whole.npz", "resumed.npz"))
        assert np.array_equal(a.flat, b.flat)
        assert a.extra["training"] == b.extra["training"]
    assert "resumed   7 of 7 epochs were done when 'c.npz' was written; nothing is left" in resumed.out


def test_resume_before_the_first_checkpoint_begins(run, flowers):
    result = run("train", flowers, *WORDS, *KEEP, "--resume")
    assert result.code == 0 and "'c.npz' is not there yet: the training begins" in result.out
    assert gpumlp.Trainer.load("c.npz", "cpu").epoch == 7


def test_figures_of_all_epochs_are_kept(run, flowers, begun, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "gpumlp.cli.train.plot_history", lambda history, *_, **__: drawn.append(history.metrics)
    )
    for words in (("-o", "a.npz"), (*KEEP, "--resume")):
        assert run("train", flowers, *WORDS, *words, "--plot", "p.png").code == 0
    whole, resumed = ({name: each[name] for name in ("loss", "lr", "val_loss")} for each in drawn)
    assert whole == resumed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--lr", "0.1"), "was written with --lr left out, and now it is 0.1"),
        (("--epochs", 9), "was written with --epochs 7, and now it is 9"),
        (("--hidden", "8"), "was written with --hidden 12,6, and now it is 8"),
        (("--validation-fraction", "0.2"), "written while training on other rows"),
    ],
)
def test_a_checkpoint_of_something_else(fails, flowers, begun, changed, message):
    before = Path("c.npz").read_bytes()
    assert message in fails("train", flowers, *WORDS, *KEEP, "--resume", *changed)
    assert Path("c.npz").read_bytes() == before


def test_files_that_are_no_checkpoint(run, fails, flowers, begun):
    words = ("train", flowers, *WORDS, "--checkpoint", "x.npz", "--resume")
    assert run("train", flowers, *WORDS, "-o", "x.npz").code == 0
    assert "it holds a model only, no training" in fails(*words)
    trainer = gpumlp.Trainer.load("c.npz", "cpu")
    trainer.model.extra = {}
    trainer.save("x.npz")
    assert "'x.npz' is not a checkpoint of 'gpumlp train'" in fails(*words)
    for extra in (None, [], {"settings": {}, "rows": "", "figures": {"loss": [1.0]}}, {"settings": 3}):
        trainer.model.extra = {"checkpoint": extra}
        trainer.save("x.npz")
        assert "x.npz" in fails(*words)
    shutil.copy("c.npz", "x.npz")
    with open("x.npz", "r+b") as file:
        file.truncate(1000)
    assert "'x.npz' is not a usable gpumlp model" in fails(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--resume", "--epochs", 3), "--resume needs --checkpoint FILE"),
        (("--every", 3, "--epochs", 3), "--every needs --checkpoint FILE"),
        (
            ("--checkpoint", "c.npz"),
            "this table is learnt by the recipe; give an option of the network as well",
        ),
        (
            ("--checkpoint", "c.npz", "--early-stopping"),
            "--checkpoint and --early-stopping exclude each other",
        ),
        (("--checkpoint", "a/c.npz", "--epochs", 3), "cannot write the checkpoint to 'a/c.npz'"),
        (("--checkpoint", "gpumlp-model.npz", "--epochs", 3), "are the same file"),
    ],
)
def test_refusals(fails, flowers, words, message):
    assert message in fails("train", flowers, "--target", "kind", *words)


def test_a_checkpoint_is_not_written_over(fails, flowers, begun):
    assert "exists already; --resume goes on from it" in fails("train", flowers, *WORDS, *KEEP)
