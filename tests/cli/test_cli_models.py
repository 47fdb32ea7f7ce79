"""``gpumlp evaluate`` and ``gpumlp predict`` on raw files, and the commands without data."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

import gpumlp
from gpumlp.cli import main
from gpumlp.preparation import load_prepared


@pytest.fixture
def flower_model(run, flowers):
    result = run("train", flowers, "--target", "kind", "--hidden", 16, "--lr", 0.02, "--out", "flowers.npz")
    assert result.code == 0, result.err
    return "flowers.npz"


@pytest.fixture
def price_model(run, prices):
    result = run(
        "train", prices, "--target", "price", "--hidden", "none", "--lr", 0.05, "--out", "prices.npz"
    )
    assert result.code == 0, result.err
    return "prices.npz"


def read(path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_text_labels_round_trip(run, flowers, flower_model):
    result = run("evaluate", flower_model, flowers)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert (
        next(line for line in lines if line.startswith("data  ") and "csv" not in line).split()[-1]
        == "1.0000"
    )
    assert next(line for line in lines if line.startswith("iris, blue")).split()[-2:] == ["1.0000", "1.0000"]
    assert run("predict", flower_model, flowers, "-o", "p.csv").code == 0
    assert [row[0] for row in read("p.csv")] == ["prediction", *(row[3] for row in read(flowers)[1:])]


def test_probabilities(run, flowers, flower_model):
    assert run("predict", flower_model, flowers, "-o", "p.csv", "--proba").code == 0
    rows = read("p.csv")
    assert rows[0] == ["prediction", "p_iris, blue", "p_rose", "p_tulip"]
    p = np.array([row[1:] for row in rows[1:]], float)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)  # float32 sums
    assert [rows[0][1 + k][2:] for k in p.argmax(axis=1)] == [row[0] for row in rows[1:]]


def test_regression_round_trip_in_units_of_the_target(run, prices, price_model):
    assert run("predict", price_model, prices, "-o", "p.csv").code == 0
    given = np.loadtxt(prices, delimiter=";", skiprows=1)[:, 2]
    answer = np.array([row[0] for row in read("p.csv")[1:]], float)
    assert np.abs(answer - given).max() < 1e-3 * given.std()  # exactly linear data, a linear model
    out = run("evaluate", price_model, prices).out
    rmse = float(
        next(line for line in out.splitlines() if line.startswith("data  ") and "csv" not in line).split()[3]
    )
    assert rmse == pytest.approx(np.sqrt(np.mean((answer - given) ** 2)), abs=1e-6 * given.std())  # float32


def test_columns_are_matched_by_name(run, flowers, flower_model, tmp_path):
    rows = read(flowers)
    order = [3, 1, 0, 2]
    (tmp_path / "s.csv").write_text(
        "\n".join(";".join(row[j] for j in order) + ";z" for row in rows).replace("seven;z", "seven;note")
    )
    a, b = run("predict", flower_model, flowers), run("predict", flower_model, "s.csv")
    assert a.out == b.out and a.out.count("\n") == 121
    assert a.err == "" and b.err == "gpumlp: columns not used by the model: note\n"


def test_prediction_needs_no_target_and_ignores_its_content(run, flowers, flower_model, tmp_path):
    (tmp_path / "n.csv").write_text("width,height,seven\n3,0,7\n")
    (tmp_path / "e.csv").write_text("width,height,kind,seven\n3,0,,7\n")
    for name in ("n.csv", "e.csv"):
        result = run("predict", flower_model, name)
        assert (result.code, result.out, result.err) == (0, "prediction\nrose\n", "")


def test_numpy_files_go_by_position(run, flower_model, price_model, tmp_path):
    np.save(tmp_path / "a.npy", np.array([[3.0, 0.0, 7.0], [0.0, 3.0, 7.0]]))
    assert run("predict", flower_model, "a.npy").out == "prediction\nrose\ntulip\n"
    np.savez(tmp_path / "b.npz", X=np.array([[3.0, 0.0, 7.0]]), y=np.array(["rose"]))
    assert "1.0000" in run("evaluate", flower_model, "b.npz").out
    np.savez(tmp_path / "c.npz", inputs=np.array([[3.0, 0.0, 7.0]]), answers=np.array(["rose"]))
    assert (
        "1.0000" in run("evaluate", flower_model, "c.npz", "--features", "inputs", "--target", "answers").out
    )


def test_npy_training_with_target_column(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(80, 2))
    np.save(tmp_path / "a.npy", np.column_stack([x, x[:, 0] > 0]))
    np.save(tmp_path / "x.npy", x)
    assert run("train", "a.npy", "--target", "-1", "--hidden", 8, "--lr", 0.05, "--out", "m.npz").code == 0
    assert run("evaluate", "m.npz", "a.npy").code == 0
    with_target, without = run("predict", "m.npz", "a.npy"), run("predict", "m.npz", "x.npy")
    assert with_target.code == 0 and with_target.out == without.out
    assert np.mean(np.array(without.out.split()[1:], int) == (x[:, 0] > 0)) > 0.9


def test_models_from_python(run, tmp_path):
    model = gpumlp.MLP([2, 3], device="cpu")
    model.set_parameters([(np.array([[1.0, 0, -1], [0, 1, 0]]), np.zeros(3))])
    model.output = "softmax"
    model.save(tmp_path / "m.npz")
    (tmp_path / "d.csv").write_text("u,v\n5,0\n-5,0\n0,5\n")
    assert run("predict", "m.npz", "d.csv").out == "prediction\n0\n2\n1\n"


# ---- bad input -----------------------------------------------------------------------------------
def test_missing_columns_are_named(fails, flower_model, tmp_path):
    (tmp_path / "d.csv").write_text("width,hight,seven\n1,2,3\n")
    assert "'d.csv' lacks 1 of the feature columns: unknown column 'height'. Did you mean 'hight'?" in fails(
        "predict", flower_model, "d.csv"
    )
    (tmp_path / "d.csv").write_text("width,height,seven\n1,2,3\n")
    assert "no target column: unknown column 'kind'" in fails("evaluate", flower_model, "d.csv")
    np.save(tmp_path / "a.npy", np.zeros((2, 5)))
    assert "'a.npy' has 5 feature columns, the model was trained with 3" in fails(
        "predict", flower_model, "a.npy"
    )


def test_predictions_are_not_written_under_another_format(fails, flowers, flower_model, tmp_path):
    for name in ("p.xlsx", "p.feather", "p.csv.gz"):
        message = f"cannot write the predictions to '{name}': the name must end in .csv or .parquet"
        assert message in fails("predict", flower_model, flowers, "-o", name)
        assert not (tmp_path / name).exists()


def test_columns_to_keep_that_are_not_there(fails, flowers, flower_model):
    message = "lacks 1 of the columns that were named: unknown column 'key'"
    assert message in fails("predict", flower_model, flowers, "--keep", "key")


def test_unknown_labels_are_named(fails, flower_model, tmp_path):
    (tmp_path / "d.csv").write_text("width,height,seven,kind\n1,2,7,rose\n1,2,7,daisy\n1,2,7,lily\n")
    assert (
        "labels that were not seen in training: 'daisy', 'lily'; known: 'iris, blue', 'rose', 'tulip'"
        in fails("evaluate", flower_model, "d.csv")
    )


def test_text_for_a_regression_target(fails, price_model, tmp_path):
    (tmp_path / "d.csv").write_text("size,age,price\n1,2,cheap\n")
    assert "holds text ('cheap')" in fails("evaluate", price_model, "d.csv")


def test_model_files_that_are_none(fails, flowers, flower_model, tmp_path):
    data = (tmp_path / flower_model).read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    for command in ("evaluate", "predict"):
        assert "'cut.npz' is not a usable gpumlp model: the file is damaged or was cut off" in fails(
            command, "cut.npz", flowers
        )
        assert "'no.npz': No such file" in fails(command, "no.npz", flowers)
        assert "it is not an .npz file" in fails(command, flowers, flowers)


def test_a_directory_is_no_model(fails, flowers, tmp_path):
    for command in ("evaluate", "predict"):
        assert "is a directory; MODEL is a file written by 'gpumlp train'" in fails(
            command, tmp_path, flowers
        )


def test_the_digits_without_data(run, fails, flower_model):
    assert run("train", "--epochs", 1, "--hidden", 16, "--out", "d.npz").code == 0
    result = run("evaluate", "d.npz")
    assert result.code == 0 and "digits: 1797 rows (all of them, training rows too)" in result.out
    assert run("predict", "d.npz").out.count("\n") == 1798
    assert "give DATA after MODEL" in fails("evaluate", flower_model)
    assert "takes 3 features (width, height, seven)" in fails("predict", flower_model)
    assert "need a data file" in fails("evaluate", "d.npz", "--target", "y")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_standard_output_is_named(tmp_path):
    # 'predict' writes more than a buffer holds, 'info' less
    gpumlp.MLP([64, 10], device="cpu").save(tmp_path / "m.npz")
    for words in (["info"], ["predict", tmp_path / "m.npz"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "gpumlp", *words],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 2
        assert done.stderr == "gpumlp: error: standard output: No space left on device\n"


@pytest.mark.parametrize(
    "change",
    [
        {"scale": [0.0, 1.0, 1.0]},
        {"mean": ["x"] * 3},
        {"classes": ["a"]},
        {"features": ["a"]},
        {"surplus": 1},
        {"target_scale": "big"},
        {"loss": "binary_cross_entropy"},
    ],
)
def test_stored_preparation_that_does_not_fit(fails, flowers, flower_model, change):
    model = gpumlp.load(flower_model, "cpu")
    model.extra["preparation"].update(change)
    model.save(flower_model)
    assert "its stored preparation" in fails("predict", flower_model, flowers)


def test_values_beyond_the_numbers_of_the_model_are_refused(fails, flowers, flower_model):
    """They would become infinite, and saturated units would answer something all the same."""
    header, first, *rest = flowers.read_text().splitlines()
    at = header.split(",").index(load_prepared(flower_model, "cpu").feature_names[1])
    cells = first.split(",")
    cells[at] = "1e300"
    flowers.write_text("\n".join([header, *rest[:4], ",".join(cells)]))
    message = fails("predict", flower_model, flowers)
    assert f"the value 1e+300 of feature {header.split(',')[at]!r} in row 4" in message
    assert "too large for float32 with the scaling of the training" in message
    with pytest.raises(ValueError, match="too large for float32"):
        load_prepared(flower_model, "cpu").predict(np.full((1, 3), 1e300))


def test_what_is_told_of_a_file_is_not_endless(run, flower_model):
    model = gpumlp.load(flower_model, "cpu")
    model.extra["training"] = {"x" * 10**5: "y" * 10**5, "figures": {"z" * 10**5: {"a": "b" * 10**5}}}
    model.save(flower_model)
    result = run("info", flower_model)
    assert result.code == 0 and len(result.out) < 15_000


def test_unwritable_predictions_are_found_first(fails, flowers, flower_model, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("predictions were computed")

    monkeypatch.setattr(gpumlp.MLP, "predict", refuse)
    assert "cannot write the predictions to 'no/p.csv': there is no directory" in fails(
        "predict", flower_model, flowers, "-o", "no/p.csv"
    )


def test_proba_of_a_regression_model(fails, prices, price_model):
    assert "--proba is for classifiers" in fails("predict", price_model, prices, "--proba")


# ---- commands without data -----------------------------------------------------------------------
def test_info(run):
    result = run("info")
    assert result.code == 0, result.err
    assert f"gpumlp    {gpumlp.__version__}" in result.out and "numpy: usable" in result.out
    assert 'device="auto" chooses ' in result.out
    for name in ("native:", "cuda:", "\n    launchers ", "\n    MPI ", "\n    NCCL ", "\n    devices "):
        assert name in result.out


def test_bench(run):
    result = run("bench", "--seconds", "0.001", "--device", "numpy", "--optimizer", "sgd")
    assert result.code == 0, result.err
    values = [
        float(line.split()[-1]) for line in result.out.splitlines() if line.startswith(("training", "update"))
    ]
    assert len(values) == 5 and min(values) > 0


def test_version_and_help(capsys):
    for words, text in (
        (["--version"], f"gpumlp {gpumlp.__version__}\n"),
        (["train", "--help"], "--early-stopping"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0 and text in capsys.readouterr().out


def test_no_command_prints_the_help(run, fails):
    result = run()
    assert result.code == 0 and result.out.startswith("usage: gpumlp") and result.err == ""
    assert "unknown command 'trian'. Did you mean 'train'?" in fails("trian")


def test_help_imports_no_heavy_package_and_runs_as_a_module():
    code = (
        "import sys\nsys.argv = ['gpumlp', '--help']\nimport runpy\n"
        "try:\n    runpy.run_module('gpumlp', run_name='__main__')\n"
        "except SystemExit as e:\n    assert not e.code\n"
        "print(sorted({'cupy', 'matplotlib', 'sklearn', 'tqdm', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.startswith("usage: gpumlp") and done.stdout.endswith("[]\n")


def test_predictions_never_overwrite_the_model_or_the_data(fails, flowers, flower_model):
    before = flowers.read_bytes()
    assert "--output" in fails("predict", flower_model, flowers, "-o", flowers)
    assert "DATA" in fails("predict", flower_model, flowers, "-o", flowers)
    assert "MODEL" in fails("predict", flower_model, flowers, "-o", flower_model)
    assert flowers.read_bytes() == before


def test_what_a_model_file_holds(run, flower_model, tmp_path):
    out = run("info", flower_model).out
    assert "MLP(3-16-3, " in out and "gives       kind, 3 classes: " in out
    assert "takes       3 features: width, height" in out
    assert "optimizer adam" in out and "epochs" in out
    part = next(line for line in out.splitlines() if line.startswith("test "))
    assert 0.5 <= float(part.split("accuracy ")[1].split(",")[0]) <= 1


@pytest.mark.parametrize(
    "extra", [{}, {"training": 3}, {"training": {"figures": [1]}}, {"training": {"a": None}}]
)
def test_a_model_file_from_python_is_described(run, tmp_path, extra):
    gpumlp.model.saved.save_model(gpumlp.MLP([3, 4, 1], device="numpy"), tmp_path / "p.npz", extra)
    out = run("info", "p.npz").out
    assert "MLP(3-4-1" in out and "takes       3 features" in out and "gives       regression" in out


def test_no_model_file_is_told(fails):
    assert "no.npz" in fails("info", "no.npz")
