"""``gpumlp train``: mistakes are told before anything is trained."""

from __future__ import annotations

import os

import numpy as np
import pytest

import gpumlp


@pytest.fixture
def never_trains(monkeypatch):
    """Errors have to be found before training."""

    def refuse(*args, **kwargs):
        raise AssertionError("training was started")

    monkeypatch.setattr(gpumlp.Trainer, "fit", refuse)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizer", "adan"], "--optimizer: unknown optimizer 'adan'. Did you mean 'adam'?"),
        (["--activation", "relu,rleu"], "unknown activation 'rleu'. Did you mean 'relu'?"),
        (["--loss", "huberr"], "unknown loss 'huberr'. Did you mean 'huber'?"),
        (["--schedule", "cosin"], "Did you mean 'cosine'?"),
        (["--lr", "-1"], "--lr: '-1' is not a number > 0"),
        (["--lr", "nan"], "--lr: 'nan' is not a number > 0"),
        (["--l2", "inf"], "--l2: 'inf' is not a number >= 0"),
        (["--dropout", "1"], "--dropout: '1' is not a number >= 0 and < 1"),
        (["--dropout", "0.1,0.2,0.3"], "--dropout has 3 entries, and --hidden has 2 layers"),
        (["--epochs", "0"], "--epochs: '0' is not a whole number >= 1"),
        (["--batch-size", "0"], "--batch-size: '0' is not a whole number >= 1"),
        (["--hidden", "64,x"], "--hidden: 'x' is not a whole number >= 1"),
        (["--hidden", "0"], "--hidden: '0' is not a whole number >= 1; for a linear model: none"),
        (["--seed", "-1"], "--seed: '-1' is not a whole number >= 0"),
        (["--optimizer-option", "momentun=0.9", "--optimizer", "sgd"], "Did you mean 'momentum'?"),
        (["--optimizer-option", "betas=2,3"], "betas=(2.0, 3.0); expected two numbers >= 0 and < 1"),
        (["--optimizer-option", "lr=1", "--lr", "1"], "lr was given twice"),
        (["--validation-fraction", "0", "--early-stopping"], "--early-stopping needs validation rows"),
        (["--test-fraction", "0.9", "--validation-fraction", "0.1"], "too few for"),
        (["--loss", "binary_cross_entropy"], "is for two classes, the target has 10"),
        (["--loss", "quantile"], "--loss quantile has several outputs for a target"),
        (["--task", "classification", "--loss", "huber"], "--loss huber is not for classification"),
        (["--target", "y"], "need a data file"),
        (["none.csv", "--target", "y"], "'none.csv': No such file or directory"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate. See 'gpumlp train --help'"),
        (["d.csv", "--targt", "price"], "--targt price. Did you mean --target? See 'gpumlp train --help'"),
        (["d.csv", "--targt=price"], "unrecognized arguments: --targt=price. Did you mean --target?"),
        (["--task", "regresion"], "--task: unknown task 'regresion'. Did you mean 'regression'?"),
        (["--dtype", "float23"], "Did you mean 'float32'?"),
        (["--early-stopping", "d.csv"], ">= 1 (give DATA before it, or a number after it)"),
        (["--device", "cudda"], "cudda"),
        (["--out", "no/such/m.npz"], "cannot write the model to 'no/such/m.npz': there is no directory"),
        (["--out", "model.pt"], "must end in .npz"),
        (["--plot", "curves.jpeg"], "must end in .png or .svg or .pdf"),
        (["--plot", "no/p.png"], "cannot write the learning curves"),
    ],
)
def test_bad_options(fails, never_trains, tmp_path, words, message):
    assert message in fails("train", *words)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,y\n1,x\n", "has 1 row, too few"),
        ("a,y\n1,x\n2,x\n3,x\n4,x\n5,x\n", "one class only ('x')"),
        ("a,y\n1,x\n2\n", "line 3: 1 cell, but"),
        ("a,y\n1,x\nred,x\n", "line 3: column 'a': 'red' is text"),
        ("a,z\n1,x\n", "no target column: unknown column 'y'"),
        ("", "is empty"),
    ],
)
def test_bad_tables(fails, never_trains, tmp_path, text, message):
    (tmp_path / "d.csv").write_text(text)
    error = fails("train", "d.csv", "--target", "y", "--hidden", 4)
    assert message in error and "d.csv" in error
    assert os.listdir(tmp_path) == ["d.csv"]


def test_unknown_labels_in_the_test_file(fails, never_trains, flowers, tmp_path):
    (tmp_path / "t.csv").write_text("width,height,seven,kind\n1,2,7,daisy\n")
    error = fails("train", flowers, "--target", "kind", "--test", "t.csv")
    assert (
        "'t.csv': target 'kind' has labels that were not seen in training: 'daisy'; known: 'iris, blue'"
        in error
    )


def test_missing_matplotlib_is_told_before_training(fails, never_trains, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert "pip install 'gpumlp[plot]'" in fails("train", "--plot", "p.png")


@pytest.mark.parametrize(
    "words",
    [
        ["--dropout", "0.1,0.2,0.3"],
        ["--hidden", "4", "--activation", "relu,tanh"],
        ["--validation-fraction", "0", "--early-stopping"],
        ["--device", "cuda:9999"],
    ],
)
def test_options_are_checked_before_the_table_is_read(fails, words):
    message = fails("train", "no.csv", "--target", "y", *words)
    assert "no.csv" not in message and next(w for w in words[::-1] if w.startswith("--"))[2:] in message


def test_results_never_overwrite_the_data(fails, never_trains, flowers, tmp_path):
    table = tmp_path / "t.npz"
    np.savez(table, X=np.zeros((20, 2)), y=np.arange(20) % 2)
    before = table.read_bytes()
    assert "--out 't.npz' and DATA './t.npz' are the same file" in fails("train", "./t.npz", "--out", "t.npz")
    message = fails("train", flowers, "--target", "kind", "--test", table, "--out", "t.npz")
    assert "--out 't.npz' and --test" in message
    assert "--plot 'p.png' and DATA" in fails("train", tmp_path / "p.png", "--plot", "p.png")
    assert table.read_bytes() == before


def test_the_target_cannot_be_dropped(fails, never_trains, prices):
    assert "'price' cannot be the target" in fails("train", prices, "--target", "price", "--drop", "price")


def test_a_quantity_is_not_learnt_as_classes(fails, never_trains, prices):
    message = fails("train", prices, "--target", "price", "--task", "classification")
    assert "with fractions" in message and "use --task regression" in message
