"""``gpumlp train``: what it prints, saves and refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest

import gpumlp
from gpumlp.cli.figures import print_figures
from gpumlp.optimizers import OPTIMIZERS, SGD


def figure(out: str, part: str, column: int) -> float:
    """A number of the printed table; column 0 is the number of rows."""
    return float(re.search(rf"^{part} +(.*)$", out, re.M)[1].split()[column])


def test_digits_without_arguments(run):
    result = run("train")
    assert result.code == 0 and result.err == ""
    assert "digits: 1797 rows, 64 features, 10 classes" in result.out
    assert "1257 train, 270 validation, 270 test (seed 0)" in result.out
    assert [figure(result.out, part, 0) for part in ("train", "validation", "test")] == [1257, 270, 270]
    assert figure(result.out, "test", 2) >= 0.97
    model = gpumlp.load("gpumlp-model.npz", "cpu")
    assert model.layer_sizes == [64, 256, 128, 10]
    assert model.extra["training"]["figures"]["test"]["accuracy"] >= 0.97


def test_quiet_prints_the_figures_only(run, flowers):
    result = run("train", flowers, "--target", "kind", "--quiet", "--hidden", "8", "--epochs", 2)
    assert result.code == 0 and result.err == ""
    assert [line.split()[0] for line in result.out.splitlines()] == ["rows", "train", "validation", "test"]


def test_the_same_seed_gives_the_same_model(run, flowers):
    for name, seed in (("a.npz", 1), ("b.npz", 1), ("c.npz", 2)):
        assert (
            run(
                "train",
                flowers,
                "--target",
                "kind",
                "--epochs",
                3,
                "--hidden",
                8,
                "--dropout",
                0.1,
                "--seed",
                seed,
                "--out",
                name,
            ).code
            == 0
        )
    a, b, c = (gpumlp.load(name, "cpu").get_parameters()[0][0] for name in ("a.npz", "b.npz", "c.npz"))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_options_reach_the_training(run, flowers, monkeypatch):
    seen = {}
    init, fit = gpumlp.Trainer.__init__, gpumlp.Trainer.fit

    def spy_init(self, model, **options):
        seen.update(options, model=model)
        init(self, model, **options)

    def spy_fit(self, X, y, **options):
        seen.update(options, X=X)
        return fit(self, X, y, **options)

    monkeypatch.setattr(gpumlp.Trainer, "__init__", spy_init)
    monkeypatch.setattr(gpumlp.Trainer, "fit", spy_fit)
    result = run(
        "train",
        flowers,
        "--target",
        "kind",
        "--hidden",
        "9,7",
        "--activation",
        "tanh,elu",
        "--dropout",
        "0.1,0.2",
        "--optimizer",
        "adamw",
        "--lr",
        "0.02",
        "--optimizer-option",
        "betas=0.8,0.9",
        "--optimizer-option",
        "amsgrad=true",
        "--weight-decay",
        "0.03",
        "--l1",
        "0.001",
        "--l2",
        "0.002",
        "--clip-norm",
        "5",
        "--schedule",
        "cosine",
        "--epochs",
        "4",
        "--batch-size",
        "16",
        "--dtype",
        "float64",
        "--seed",
        "5",
        "--early-stopping",
        "3",
        "--validation-fraction",
        "0.2",
        "--test-fraction",
        "0.1",
    )
    assert result.code == 0, result.err
    model, rule = seen["model"], seen["optimizer"]
    assert (
        model.layer_sizes == [3, 9, 7, 3]
        and model.activations == ["tanh", "elu"]
        and model.dropouts == [0.1, 0.2]
    )
    assert (rule.name, rule.lr, rule.betas, rule.amsgrad, rule.weight_decay) == (
        "adamw",
        0.02,
        (0.8, 0.9),
        True,
        0.03,
    )
    assert (seen["l1"], seen["l2"], seen["clip_norm"], seen["schedule"], seen["seed"]) == (
        0.001,
        0.002,
        5.0,
        "cosine",
        5,
    )
    assert (seen["epochs"], seen["batch_size"], seen["early_stopping"].patience) == (4, 16, 3)
    assert (
        seen["X"].dtype == np.float64 and len(seen["X"]) == 120 - 24 - 12 and len(seen["validation"][0]) == 24
    )


def test_hidden_none_is_a_linear_model(run, prices):
    assert run("train", prices, "--target", "price", "--hidden", "none", "--out", "m.npz").code == 0
    assert gpumlp.load("m.npz", "cpu").layer_sizes == [2, 1]


def test_no_standardize_takes_numbers_as_they_are(run, flowers):
    assert (
        run("train", flowers, "--target", "kind", "--no-standardize", "--epochs", 1, "--out", "m.npz").code
        == 0
    )
    assert gpumlp.load("m.npz", "cpu").extra["preparation"]["mean"] == []


def test_test_file(run, flowers, tmp_path):
    lines = flowers.read_text().splitlines()
    (tmp_path / "test.csv").write_text(
        "\n".join(["kind,seven,height,width,note", "rose,7,0.1,3,x", "tulip,7,3,0,y"])
    )
    result = run("train", flowers, "--target", "kind", "--test", "test.csv", "--batch-size", 8)
    assert result.code == 0, result.err
    assert f"{len(lines) - 1 - 18} train, 18 validation, 2 test" in result.out
    assert figure(result.out, "test", 0) == 2 and figure(result.out, "test", 2) == 1.0


def test_binary_cross_entropy_for_two_classes(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 2))
    np.savez(tmp_path / "d.npz", X=x, y=(x[:, 0] > 0).astype(int))
    result = run(
        "train", "d.npz", "--loss", "binary_cross_entropy", "--hidden", "8", "--lr", "0.05", "--out", "m.npz"
    )
    assert result.code == 0, result.err
    assert gpumlp.load("m.npz", "cpu").layer_sizes == [2, 8, 1]
    assert figure(result.out, "train", 2) > 0.95


def test_npz_test_rows_are_used(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 2))
    y = (x[:, 0] > 0).astype(int)
    np.savez(tmp_path / "d.npz", x_train=x[:50], y_train=y[:50], x_test=x[50:], y_test=y[50:])
    result = run("train", "d.npz", "--epochs", 1, "--hidden", 4)
    assert result.code == 0 and "42 train, 8 validation, 10 test" in result.out


def test_a_new_rule_appears_by_itself(run, flowers, monkeypatch):
    class Toy(SGD):
        name = "toy"

    monkeypatch.setitem(OPTIMIZERS, "toy", Toy)
    result = run("train", flowers, "--target", "kind", "--optimizer", "toy", "--lr", "0.1", "--epochs", 2)
    assert result.code == 0 and "toy (lr 0.1)" in result.out
    with pytest.raises(SystemExit):
        run("train", "--help")


# ---- bad input -----------------------------------------------------------------------------------
def test_divergence_keeps_the_old_model(run, prices, tmp_path):
    (tmp_path / "m.npz").write_bytes(b"old")
    result = run("train", prices, "--target", "price", "--optimizer", "sgd", "--lr", "1e6", "--out", "m.npz")
    assert result.code == 2
    assert re.fullmatch(
        r"gpumlp: error: training diverged: the loss became \w+ in epoch \d+, .*step.* \(lr 1e\+06\); "
        r"no model was saved\. Try --lr 0\.01, or --clip-norm 1\n",
        result.err,
    )
    more = ("--clip-norm", 1, "--no-standardize", "--lr", 1e-2, "--l2", 1e30)
    result = run("train", prices, "--target", "price", "--optimizer", "sgd", *more, "--out", "m.npz")
    assert result.err.endswith("Try --lr 0.001, or leave out --no-standardize\n")
    assert (tmp_path / "m.npz").read_bytes() == b"old"


def test_nearly_as_many_classes_as_rows_is_told(run, tmp_path):
    (tmp_path / "t.csv").write_text(
        "a,y\n" + "".join(f"{i},{i // 2 * 2 if i < 4 else i}\n" for i in range(30))
    )
    result = run("train", "t.csv", "--target", "y", "--task", "classification", "--epochs", 1, "--hidden", 4)
    assert result.code == 0, result.err
    assert "warning: target 'y' has 28 classes in only 30 rows" in result.err


def test_what_was_set_is_shown(run, flowers):
    base = ("train", flowers, "--target", "kind", "--hidden", "8", "--epochs", 1)
    plain = run(*base).out
    assert re.search(r"^training  softmax_cross_entropy, adam \(lr 0\.001\), batch 32, 1 epoch$", plain, re.M)
    assert re.search(r"^done      1 epoch in", plain, re.M) and "dropout" not in plain
    words = "--dropout 0.25 --optimizer sgd --optimizer-option momentum=0.9 --optimizer-option nesterov=true"
    words += " --l1 1e-5 --l2 0.001 --weight-decay 0.01 --schedule cosine --clip-norm 2 --early-stopping 3"
    out = run(*base, *words.split()).out
    assert re.search(r"^model .*, dropout 0\.25$", out, re.M)
    line = re.search(r"^training  (.*)$", out, re.M)[1]
    for part in ("momentum 0.9", "nesterov", "l1 1e-05", "l2 0.001", "weight_decay 0.01", "cosine schedule"):
        assert part in line
    assert line.endswith("clip norm 2, batch 32, at most 1 epoch, patience 3")


def test_what_is_replaced_is_told(run, flowers):
    base = ("train", flowers, "--target", "kind", "--hidden", "8", "--epochs", 1, "--out", "m.npz")
    assert "model saved to m.npz\n" in run(*base).out
    assert "model saved to m.npz (the file that was there is replaced)\n" in run(*base).out
    for more in ("", " (the file that was there is replaced)"):
        assert run("predict", "m.npz", flowers, "-o", "p.csv").err == (
            f"120 predictions written to p.csv{more}\n"
        )


def test_unused_arrays_and_names_of_an_archive(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 2))
    arrays = {"X": x, "y": x[:, 0], "feature_names": ["Income", "Rooms"], "target_name": "Price"}
    np.savez(tmp_path / "d.npz", **arrays, train_idx=np.arange(9), val_idx=np.arange(9))
    result = run("train", "d.npz", "--epochs", 1, "--hidden", 4, "--out", "m.npz")
    assert re.search(r"^not used  train_idx, val_idx$", result.out, re.M)
    assert "2 features, target Price" in result.out
    result = run("evaluate", "m.npz", "d.npz")
    assert result.code == 0 and result.err == "gpumlp: arrays not used by the model: train_idx, val_idx\n"
    np.savez(tmp_path / "e.npz", X=x, y=x[:, 0], target_name="Price")
    assert run("train", "e.npz", "--epochs", 1, "--hidden", 4, "--out", "m.npz").code == 0
    assert run("evaluate", "m.npz", "e.npz").code == 0


def test_drop_is_for_csv_files(fails, tmp_path):
    np.savez(tmp_path / "d.npz", X=np.zeros((20, 2)), y=np.arange(20))
    assert "--drop leaves out columns of a CSV file" in fails("train", "d.npz", "--drop", "x0")


def test_a_column_of_figures_has_one_number_of_decimals(capsys):
    figures = {
        "train": {"loss": 0.004496, "rmse": 123456.7, "r2": 0.00012},
        "test": {"loss": 0.1406, "rmse": 0.5, "r2": 0.0},
    }
    print_figures(figures, {"train": 9, "test": 1})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["train", "9", "0.004496", "123456.70", "0.0001"],
        ["test", "1", "0.140600", "0.50", "-"],
    ]
    print_figures({"data": {"loss": 1e-12}, "more": {"loss": 0.5}}, {"data": 1, "more": 1})
    assert "1.000e-12" in (out := capsys.readouterr().out) and "5.000e-01" in out


def test_one_row_is_singular(run, tmp_path):
    (tmp_path / "d.csv").write_text("a,y\n" + "".join(f"{i},{i * 1.5}\n" for i in range(20)))
    (tmp_path / "one.csv").write_text("a,y\n1,1.5\n")
    out = run("train", "d.csv", "--target", "y", "--epochs", 1, "--hidden", 4, "--out", "m.npz").out
    assert "20 rows, 1 feature, target y" in out
    out = run("evaluate", "m.npz", "one.csv").out
    assert "one.csv: 1 row\n" in out and out.split()[-1] == "-"
