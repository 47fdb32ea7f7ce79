"""``gpumlp tune``: what it draws, trains, chooses, prints, saves and refuses."""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.cli import search, trials
from gpumlp.cli.values import Span, fraction, integer, positive, span_of

ON_CUDA = "cuda" in os.environ.get("GPUMLP_TEST_DEVICE", "")
SMALL = ("--target", "kind", "--width", "4:8", "--layers", "0:2", "--epochs", 6)


def read(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def figure(out: str, part: str, column: int) -> float:
    """A number of the printed table of parts; column 0 is the number of rows."""
    return float(re.search(rf"^{part} +(.*)$", out, re.M)[1].split()[column])


@pytest.fixture
def given(monkeypatch) -> dict[str, Any]:
    """What `fit_many` is called with."""
    seen: dict[str, Any] = {}
    real = search.fit_many

    def spy(trainers: Any, X: Any, y: Any, **more: Any) -> Any:
        seen.update(more, trainers=trainers, X=X, y=y)
        return real(trainers, X, y, **more)

    monkeypatch.setattr(search, "fit_many", spy)
    return seen


class TestSpans:
    def test_ranges(self) -> None:
        u = np.random.default_rng(0).random(20_000)
        width = span_of(integer(1), "log", whole=True)("16:256")
        drawn = np.array([width.at(x) for x in u])
        assert drawn.min() == 16 and drawn.max() == 256 and (drawn == drawn.round()).all()
        assert abs((drawn <= 64).mean() - 0.5) < 0.02  # half of the logarithm
        layers = span_of(integer(0), whole=True)("1:3")
        assert np.abs(np.bincount([layers.at(x) for x in u])[1:] / len(u) - 1 / 3).max() < 0.02
        lr = span_of(positive, "log")("1e-4:1e-1")
        drawn = np.array([lr.at(x) for x in u])
        assert drawn.min() >= 1e-4 and drawn.max() <= 0.1
        assert abs((drawn < 1e-3).mean() - 1 / 3) < 0.02
        dropout = span_of(fraction)("0:0.5")
        assert abs(np.mean([dropout.at(x) for x in u]) - 0.25) < 0.01
        for span, ends in ((lr, (1e-4, 0.1)), (width, (16, 256)), (layers, (1, 3))):
            close(np.array([span.at(0.0), span.at(1 - 2**-53)], float), np.array(ends, float), "elementwise")

    def test_values(self) -> None:
        some = span_of(positive, "log")("0.1, 0.2,0.4")
        assert [some.at(u) for u in (0.0, 0.34, 0.99)] == [0.1, 0.2, 0.4] and str(some) == "0.1,0.2,0.4"
        assert span_of(positive)("0.5").at(0.7) == 0.5
        assert str(span_of(positive)("1e-5:2")) == "1e-05:2"

    @pytest.mark.parametrize("text", ["1:", ":1", "2:1", "1:1", "1:2:3", "0:1", "x", ""])
    def test_mistakes(self, text: str) -> None:
        with pytest.raises(argparse.ArgumentTypeError):
            span_of(positive, "log")(text)

    def test_more_trials_begin_with_the_same(self) -> None:
        spans = {"lr": Span((0.1, 1.0), True, "log"), "width": Span((4, 9), True, whole=True)}
        few, many = (trials.draw_settings(spans, n, 3) for n in (3, 9))
        assert many[:3] == few and trials.draw_settings(spans, 3, 4) != few
        fixed = trials.draw_settings({**spans, "lr": Span((0.5,))}, 3, 3)  # changes nothing else
        assert [row["width"] for row in fixed] == [row["width"] for row in few]


def test_the_best_is_saved_and_is_what_its_own_fit_would_have_been(run, flowers, given):
    result = run(
        "tune", flowers, *SMALL, "--trials", 5, "-o", "m.npz", "--csv", "t.csv", "--activation", "tanh"
    )
    assert result.code == 0 and result.err == "", result.err
    assert "search    5 trials: lr 0.0003:0.03, layers 0:2, width 4:8, dropout 0:0.3" in result.out
    rows = read("t.csv")
    assert [row["trial"] for row in rows] == list("12345") and {row["rung"] for row in rows} == {""}
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert f"model of trial {best['trial']} saved to m.npz\n" in result.out
    table = re.search(r"^trial .*\n(.*)\n", result.out, re.M)[1].split()
    assert table[0] == best["trial"] and float(table[3]) == pytest.approx(float(best["lr"]), rel=5e-3)

    number = int(best["trial"])
    trainer = gpumlp.Trainer(
        gpumlp.MLP(
            [3, *[int(best["width"])] * int(best["layers"]), 3],
            "tanh",
            dropout=float(given["trainers"][number - 1].model.dropout),
            seed=number - 1,
            device="cpu",
        ),
        loss="softmax_cross_entropy",
        optimizer=given["trainers"][number - 1].optimizer.__class__(
            lr=given["trainers"][number - 1].optimizer.lr,
            weight_decay=given["trainers"][number - 1].optimizer.weight_decay,
        ),
        batch_size=32,
        seed=number - 1,
    )
    assert trainer.optimizer.lr == pytest.approx(float(best["lr"]), rel=1e-5)
    assert trainer.optimizer.weight_decay == pytest.approx(float(best["weight_decay"]), rel=1e-5)
    history = trainer.fit(
        given["X"],
        given["y"],
        epochs=6,
        validation=given["validation"],
        early_stopping=gpumlp.EarlyStopping(patience=10),
        progress=False,
    )
    saved = gpumlp.load("m.npz", "cpu")
    for (w, b), (v, c) in zip(saved.get_parameters(), trainer.model.get_parameters(), strict=True):
        close(w, v, "50 training steps")
        close(b, c, "50 training steps")
    assert float(best["val_loss"]) == pytest.approx(min(history.val_loss), rel=1e-4)
    assert int(float(best["best_epoch"])) == history.best_epoch + 1
    summary = saved.extra["training"]
    assert summary["trials"] == 5 and summary["chosen"] == best["trial"]
    assert summary["figures"]["validation"]["loss"] == pytest.approx(min(history.val_loss), rel=1e-4)
    assert figure(result.out, "validation", 0) == 18
    info = run("info", "m.npz").out
    assert f"trials 5, chosen {best['trial']}, lr " in info and "weight decay" in info
    assert run("evaluate", "m.npz", flowers).code == 0


def test_the_embedded_digits(run):
    result = run("tune", "--trials", 2, "--epochs", 2, "--width", 16, "--layers", 1, "--quiet")
    assert result.code == 0 and result.err == ""
    assert [line.split()[0] for line in result.out.splitlines()] == ["rows", "train", "validation", "test"]
    assert gpumlp.load("gpumlp-model.npz", "cpu").layer_sizes == [64, 16, 10]


def test_the_table_fits_a_terminal(run):
    out = run("tune", "--trials", "3", "--epochs", "1", "--halving").out
    table = out[out.index("\ntrial ") + 1 :].split("\n\n")[0].splitlines()
    assert len(table) == 4 and max(map(len, table)) < 80


def test_halving(run, flowers, given):
    words = ("--trials", 9, "--halving", "--csv", "t.csv")
    result = run("tune", flowers, *SMALL, *words)
    assert result.code == 0, result.err
    assert "halving   9 trials, of which go on: 3 after epoch 1, 1 after epoch 2" in result.out
    assert "8 left at a rung" in result.out
    assert given["halving"] == gpumlp.SuccessiveHalving(3)
    rows = read("t.csv")
    assert sorted((row["rung"], row["epochs"], row["end"]) for row in rows) == [
        *[("0", "1", "rung 1")] * 6,
        *[("1", "2", "rung 2")] * 2,
        ("2", "6", "last epoch"),
    ]
    last = next(row for row in rows if row["rung"] == "2")
    assert f"model of trial {last['trial']} saved" in result.out
    none = run("tune", flowers, *SMALL, "--trials", 3, "--halving", 4)
    assert none.code == 0 and "3 trials; too few for a rung, all go on" in none.out


@pytest.mark.parametrize("ensemble", [None, 3])
@pytest.mark.parametrize("table", ["flowers", "prices"])
def test_folds(run, request, given, table, ensemble):
    """Each row is held out once; the networks of the chosen trials answer together."""
    data, target = request.getfixturevalue(table), {"flowers": "kind", "prices": "price"}[table]
    more = () if ensemble is None else ("--ensemble", ensemble)
    words = ("--trials", 4, "--folds", 3, "--halving", 2, "--width", 8, "--epochs", 8, "--lr", "0.005:0.05")
    result = run("tune", data, "--target", target, *words, *more, "-o", "m.npz", "--csv", "t.csv")
    assert result.code == 0 and result.err == "", result.err
    X, y = given["X"], given["y"]
    n = {"flowers": 102, "prices": 170}[table]
    assert len(X) == n and f"folds     3, of {n // 3} training rows or one more each" in result.out
    assert len(given["trainers"]) == 12 and given["groups"] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    counts = np.zeros(n, int)
    place = 0
    for rows, (held, of_held) in zip(given["rows"][:3], given["validation"][:3], strict=True):
        fold = np.arange(place, place + len(held))
        place += len(held)
        assert np.array_equal(held, X[fold]) and np.array_equal(of_held, y[fold])
        assert sorted([*rows, *fold]) == list(range(n))
        counts[fold] += 1
    assert (counts == 1).all()

    # the figure of rows that were held out, by hand
    saved = gpumlp.load("m.npz", "cpu")
    folds = np.array_split(np.arange(n), 3)
    parts = []
    for k in range(0, len(saved), 3):
        of_trial = [
            m.predict_proba(X[fold]) if table == "flowers" else m.predict(X[fold])
            for m, fold in zip(saved.models[k : k + 3], folds, strict=True)
        ]
        parts.append(np.concatenate(of_trial).astype(float))
    mean = np.mean(parts, axis=0)
    assert len(parts) == (ensemble or 1)
    rows = read("t.csv")
    if table == "flowers":
        expected = -np.log(mean[np.arange(n), y]).mean()
        assert figure(result.out, "validation", 2) == pytest.approx((mean.argmax(1) == y).mean(), abs=1e-4)
    else:
        expected = 0.5 * ((mean - y) ** 2).mean()
    assert figure(result.out, "validation", 0) == n
    assert figure(result.out, "validation", 1) == pytest.approx(expected, rel=1e-3)
    assert "folds 3" in run("info", "m.npz").out
    assert len({(row["rung"], row["epochs"]) for row in rows}) > 1
    if ensemble is None:
        assert "Ensemble(3 networks" in result.out
        best = min(rows, key=lambda row: float(row["val_loss"]))
        by_fold = [min(t.history.val_loss) for t in given["trainers"][3 * int(best["trial"]) - 3 :][:3]]
        assert float(best["val_loss"]) == pytest.approx(np.mean(by_fold), rel=1e-6)
    for command in ("evaluate", "predict"):
        assert run(command, "m.npz", data).code == 0


@pytest.mark.parametrize(
    ("table", "loss"), [("flowers", None), ("prices", None), ("prices", "huber"), ("flowers", "two")]
)
def test_an_ensemble_is_the_greedy_one(run, request, given, tmp_path, table, loss):
    data, target = request.getfixturevalue(table), {"flowers": "kind", "prices": "price"}[table]
    more = () if loss is None else ("--loss", loss)
    if loss == "two":  # two classes, one sigmoid
        text = data.read_text()
        data = tmp_path / "two.csv"
        data.write_text(text.replace("tulip", "rose"))
        more = ("--loss", "binary_cross_entropy")
    words = ("--trials", 6, "--width", 8, "--epochs", 8, "--ensemble", 4)
    result = run("tune", data, "--target", target, *words, *more, "-o", "m.npz")
    assert result.code == 0 and result.err == "", result.err
    saved = gpumlp.load("m.npz", "cpu")
    order = sorted(given["trainers"], key=lambda t: min(t.history.val_loss))
    expected = gpumlp.greedy_ensemble([t.model for t in order], *given["validation"], 4)
    assert len(saved) == 4
    for mine, theirs in zip(saved.models, expected.models, strict=True):
        assert np.array_equal(mine.get_parameters()[0][0], theirs.get_parameters()[0][0])
    assert re.search(r"^Ensemble\(4 networks.* of trials? .* saved to m.npz$", result.out, re.M)
    assert run("predict", "m.npz", data).code == 0


def test_the_same_seed_gives_the_same_trials(run, flowers):
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ("--trials", 3, "--seed", seed, "--csv", f"{name}.csv", "-o", f"{name}.npz")
        assert run("tune", flowers, *SMALL, *words).code == 0
        found.append([{**row, "seconds": ""} for row in read(f"{name}.csv")])
    assert found[0] == found[1] != found[2]


def test_options_reach_the_trainings(run, flowers, given):
    words = ("--optimizer", "sgd", "--optimizer-option", "momentum=0.9", "--l1", 0.001, "--clip-norm", 5)
    words += ("--schedule", "cosine", "--batch-size", 16, "--dtype", "float64", "--early-stopping", 2)
    words += ("--lr", "0.1,0.2", "--weight-decay", 0, "--dropout", "0.1")
    result = run("tune", flowers, *SMALL, *words, "--trials", 4)
    assert result.code == 0, result.err
    assert "training  softmax_cross_entropy, sgd (momentum 0.9), cosine schedule, clip norm 5" in result.out
    for trainer in given["trainers"]:
        rule = trainer.optimizer
        assert (rule.name, rule.momentum, rule.l1, rule.weight_decay) == ("sgd", 0.9, 0.001, 0)
        assert rule.lr in (0.1, 0.2) and trainer.batch_size == 16 and trainer.clip_norm == 5
        assert trainer.model.dtype == np.float64
        assert trainer.model.dropouts == [0.1] * (len(trainer.model.layer_sizes) - 2)
    assert {t.seed for t in given["trainers"]} == {0, 1, 2, 3}
    assert given["early_stopping"].patience == 2 and given["progress"] is None


def test_diverged_trials_are_told_and_not_chosen(run, flowers, fails):
    words = ("--optimizer", "sgd", "--lr", "0.1,1e38", "--trials", 6, "--csv", "t.csv")
    result = run("tune", flowers, *SMALL, *words)
    assert result.code == 0, result.err
    rows = read("t.csv")
    lost = [row for row in rows if row["end"] == "diverged"]
    assert 0 < len(lost) < 6 and f"{len(lost)} diverged" in result.out
    assert all(float(row["lr"]) == 1e38 and row["val_loss"] == "" for row in lost)
    os.remove("gpumlp-model.npz")
    message = fails("tune", flowers, *SMALL, "--optimizer", "sgd", "--lr", "1e38", "--trials", 3)
    assert "all 3 trials diverged: " in message and "no model was saved. Try --lr 0.01" in message
    assert not os.path.exists("gpumlp-model.npz")


def test_a_diverged_fold_of_every_trial_is_told(run, flowers, fails, monkeypatch):
    real = search.fit_many

    def spoil(trainers: Any, *given: Any, **more: Any) -> Any:
        for trainer in trainers[::2]:
            trainer.optimizer = gpumlp.SGD(lr=1e38)
        return real(trainers, *given, **more)

    monkeypatch.setattr(search, "fit_many", spoil)
    assert "all 3 trials diverged" in fails(
        "tune", flowers, *SMALL, "--trials", 3, "--folds", 2, "--layers", 2
    )


def test_trials_without_a_finite_validation_loss(run, flowers, fails, monkeypatch):
    real = search.fit_many

    def spoil(trainers: Any, *given: Any, **more: Any) -> Any:
        histories = real(trainers, *given, **more)
        for history in histories:
            history.metrics["val_loss"] = [float("nan")] * len(history)
        return histories

    monkeypatch.setattr(search, "fit_many", spoil)
    assert "no trial has a finite validation loss; no model" in fails("tune", flowers, *SMALL, "--trials", 2)


@pytest.mark.parametrize("folds", [(), ("--folds", 3)])
def test_training_rows_of_one_class(fails, tmp_path, folds):
    lines = ["a,b", *(f"{k},{'no' if k else 'yes'}" for k in range(12))]
    (tmp_path / "d.csv").write_text("\n".join(lines) + "\n")
    found = []
    for seed in range(12):  # the one row is held out by some of them
        words = ("--target", "b", "--trials", 1, "--epochs", 1, "--seed", seed, "--test-fraction", 0.3)
        try:
            found.append(fails("tune", "d.csv", *words, *folds))
        except AssertionError:
            continue
    which = "without fold " if folds else "the training rows"
    assert found and all(which in text and "are all of class 'no'" in text for text in found)


def test_the_largest_seed(run, flowers):
    assert run("tune", flowers, *SMALL, "--trials", 2, "--seed", 2**63 - 1).code == 0


class TestRefusals:
    @pytest.fixture(autouse=True)
    def never_trains(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("training was started")

        monkeypatch.setattr(search, "fit_many", refuse)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--lr", "3:1"], "--lr: '3:1'; expected LOW:HIGH with LOW < HIGH, a number, or numbers"),
            (["--lr", "-1"], "--lr: '-1' is not a number > 0"),
            (["--weight-decay", "0:1"], "the range must begin above 0 (or give numbers with commas: 0,1)"),
            (["--dropout", "0:1"], "--dropout: '1' is not a number >= 0 and < 1"),
            (["--width", "0:4"], "--width: '0' is not a whole number >= 1"),
            (["--layers", "1.5"], "--layers: '1.5' is not a whole number >= 0"),
            (["--trials", "0"], "--trials: '0' is not a whole number >= 1"),
            (["--folds", "1"], "--folds: '1' is not a whole number >= 2"),
            (["--folds", "1000"], "--folds 1000 needs at least 2000 rows; there are 1527"),
            (["--folds", "2", "--validation-fraction", "0.1"], "--folds exclude each other"),
            (["--validation-fraction", "0"], "judged by validation rows, and --validation-fraction is 0"),
            (["--halving", "1.5"], "--halving: '1.5' is not a number >= 2"),
            (["--halving", "d.csv"], "(give DATA before it, or a number after it)"),
            (["--ensemble", "0"], "--ensemble: '0' is not a whole number >= 1"),
            (["--optimizer-option", "lr=1"], "--optimizer-option lr: each trial has its own; use --lr RANGE"),
            (["--optimizer-option", "weight_decay=1"], "use --weight-decay RANGE"),
            (["--optimizer-option", "momentun=1", "--optimizer", "sgd"], "Did you mean 'momentum'?"),
            (["--loss", "quantile"], "--loss quantile has several outputs for a target"),
            (["--activation", "rleu"], "Did you mean 'relu'?"),
            (["--hidden", "8"], "unrecognized arguments: --hidden"),
            (["--trails", "8"], "Did you mean --trials?"),
            (["--target", "y"], "need a data file: gpumlp tune DATA"),
            (["--device", "cudda"], "cudda"),
            (["-o", "model.pt"], "must end in .npz"),
            (["--csv", "no/t.csv"], "cannot write the trials to 'no/t.csv'"),
            (["--csv", "a.npz", "-o", "a.npz"], "are the same file"),
            (["--plot", "p.gif"], "must end in .png or .svg or .pdf"),
            (["none.csv", "--target", "y"], "'none.csv': No such file or directory"),
        ],
    )
    def test_before_any_training(self, fails, tmp_path, words, message):
        assert message in fails("tune", *words)
        assert os.listdir(tmp_path) == []


class TestInterrupts:
    @pytest.fixture
    def interrupt_in_evaluation(self, monkeypatch):
        """interrupt_in_evaluation(3): Ctrl-C while an epoch is evaluated, the third of all."""

        def prepare(number: int) -> None:
            real, seen = gpumlp.training.evaluation.ResidentEvaluation.run, []

            def counting(self):
                seen.append(self)
                if len(seen) == number:
                    raise KeyboardInterrupt
                real(self)

            monkeypatch.setattr(gpumlp.training.evaluation.ResidentEvaluation, "run", counting)

        return prepare

    def test_in_the_first_epoch_nothing_is_saved(self, run, flowers, interrupt_in_evaluation, tmp_path):
        interrupt_in_evaluation(1)  # others of the same epoch would still finish it
        result = run("tune", flowers, *SMALL, "--trials", 1)
        assert result.code == 130 and "interrupted; nothing was saved" in result.err
        assert os.listdir(tmp_path) == ["flowers.csv"]

    @pytest.mark.parametrize("more", [(), ("--halving", 2), ("--ensemble", 2)])
    def test_the_best_so_far_is_saved(self, run, flowers, interrupt_in_evaluation, more):
        pytest.importorskip("matplotlib")
        interrupt_in_evaluation(9)
        words = ("--trials", 4, "-o", "m.npz", "--csv", "t.csv", "--plot", "p.png")
        result = run("tune", flowers, *SMALL, *words, *more)
        assert result.code == 130
        assert result.err == "\ngpumlp: interrupted; the best so far was saved to m.npz\n"
        assert "interrupted" in result.out and "ended by Ctrl-C (once more: nothing is saved)" in result.out
        assert figure(result.out, "test", 0) == 18
        rows = read("t.csv")
        assert len(rows) == 4 and 0 < sum(int(row["epochs"]) for row in rows) < 24
        losses = [float(row["val_loss"]) for row in rows if row["val_loss"]]
        if "--ensemble" not in more:
            assert figure(result.out, "validation", 1) == pytest.approx(min(losses), rel=1e-3)
        assert os.path.exists("p.png") and gpumlp.load("m.npz", "cpu").extra["training"]["trials"] == 4

    @pytest.mark.skipif(ON_CUDA, reason="networks of a plan train together")
    def test_a_trial_without_all_its_folds_is_no_result(self, run, flowers, interrupt_in_evaluation):
        interrupt_in_evaluation(2)
        result = run("tune", flowers, *SMALL, "--trials", 1, "--folds", 2, "--epochs", 20)
        assert result.code == 130 and "interrupted; nothing was saved" in result.err

    def test_a_second_one_ends_at_once(self, run, flowers, interrupt_in_evaluation, monkeypatch, tmp_path):
        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        interrupt_in_evaluation(9)
        monkeypatch.setattr(search, "evaluate_model", interrupt)
        result = run("tune", flowers, *SMALL, "--trials", 4)
        assert result.code == 130 and "interrupted; nothing was saved" in result.err
        assert os.listdir(tmp_path) == ["flowers.csv"]

    def test_after_the_trainings_the_model_is_saved(self, run, flowers, monkeypatch):
        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(search, "evaluate_model", interrupt)
        result = run("tune", flowers, *SMALL, "--trials", 3, "-o", "m.npz")
        assert result.code == 130
        assert result.err == "\ngpumlp: interrupted after the trainings; the model was saved to m.npz\n"
        assert gpumlp.load("m.npz", "cpu").extra["training"]["trials"] == 3

    def test_a_real_one(self, tmp_path):
        watch = (
            "import gpumlp.training.evaluation as s, signal, os\nreal, seen = s.ResidentEvaluation.run, []\n"
            "def run(self):\n    real(self)\n    seen.append(1)\n"
            "    if len(seen) == 30: os.kill(os.getpid(), signal.SIGINT)\n"
            "s.ResidentEvaluation.run = run\nfrom gpumlp.cli import main\nraise SystemExit(main())"
        )
        words = ["tune", "--trials", "4", "--epochs", "1000000", "--early-stopping", "1000000", "--quiet"]
        words += ["--width", "8", "--out", "m.npz", "--device", "cpu"]
        done = subprocess.run(
            [sys.executable, "-c", watch, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=120,
        )
        assert done.returncode == 130 and "Traceback" not in done.stderr
        assert "gpumlp: interrupted; the best so far was saved to m.npz" in done.stderr
        assert gpumlp.load(tmp_path / "m.npz", "cpu").extra["training"]["trials"] == 4


@pytest.mark.parametrize("more", [(), ("--halving", 2, "--folds", 2), ("--lr", 0.01, "--layers", "1,2")])
def test_the_picture(run, flowers, more):
    mpl = pytest.importorskip("matplotlib")
    with mpl.rc_context({"svg.fonttype": "none"}):  # letters stay letters
        result = run("tune", flowers, *SMALL, "--trials", 6, *more, "--plot", "p.svg")
    assert result.code == 0, result.err
    assert "picture saved to p.svg" in result.out
    with open("p.svg", encoding="utf-8") as file:
        text = file.read()
    for words in ("All trials", "validation loss", "epoch", "width", "dropout", "weight decay", "chosen"):
        assert words in text
    assert (">lr<" in text) == ("--lr" not in more)
    assert ("ended at a rung" in text and ">rung<" in text) == ("--halving" in more)


def test_progress_says_how_many_networks_are_left(run, flowers, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    real = search.fit_many
    monkeypatch.setattr(search, "fit_many", lambda *a, **k: real(*a, **{**k, "progress": True}))
    words = ("--target", "kind", "--width", 64, "--epochs", 150, "--early-stopping", 150, "--trials", 4)
    result = run("tune", flowers, *words)
    assert result.code == 0 and re.search(r"\d of 4 networks", result.err)
