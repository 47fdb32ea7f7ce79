"""``gpumlp train`` by the recipe for tables, and what the other commands do with its models."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest

pytest.importorskip("sklearn")

import gpumlp
from gpumlp.cli.ways import by_recipe
from gpumlp.cli.words import make_parser
from gpumlp.preparation import load_prepared
from gpumlp.tables import read_frame

FAST = ("--quality", "fast", "--out", "m.npz")


def people(n: int = 160) -> dict[str, list[str]]:
    """Text, codes with zeros, gaps, dates, truth values; what they earn, as class and as number."""
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, n)
    town = rng.choice(["007", "07", "7", "12"], n)
    job = rng.choice(["smith", "baker, old", ""], n)
    days = rng.integers(0, 900, n)
    score = (age - 45) / 12 + 2 * (town == "07") + rng.normal(0, 0.3, n)
    return {
        "id": [f"{k:05d}" for k in range(n)],
        "age": [str(v) if k % 9 else "" for k, v in enumerate(age)],
        "town": town.tolist(),
        "job": job.tolist(),
        "since": [str(np.datetime64("2020-01-01") + day) for day in days],
        "member": [str(v % 2 == 0) for v in days],
        "w": [str(k % 3) for k in range(n)],
        "pay": [f"{v:.17g}" for v in 3e4 + 1000 * score],
        "rich": ["yes" if v > 0.5 else "no" for v in score],
    }


def write(path, columns: dict[str, list[str]]) -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return str(path)


@pytest.fixture
def data(tmp_path) -> str:
    return write(tmp_path / "people.csv", people())


@pytest.fixture
def seen(monkeypatch) -> dict:
    """What a fit is given; it is not done."""
    found: dict = {}

    def fit(self, X, y, sample_weight=None, **more):
        found.update(more, X=X, y=y, w=sample_weight, estimator=self)
        raise ValueError("enough")

    monkeypatch.setattr(gpumlp.TabularClassifier, "fit", fit)
    monkeypatch.setattr(gpumlp.TabularRegressor, "fit", fit)
    return found


def table(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        (["d.csv"], True),
        (["a.parquet", "folder"], True),
        (["d.csv", "--seed", "1", "--test-fraction", "0.2", "--quiet", "--device", "cpu"], True),
        (["d.csv", "--epochs", "3"], False),
        (["d.csv", "--optimizer=adam"], False),
        ([], False),
        (["--plot", "c.png"], False),
        (["d.npz"], False),
        (["d.npz", "--quality", "fast"], True),
        (["--time-limit", "3"], True),
    ],
)
def test_which_way(words, recipe):
    arguments = make_parser().parse_args(["train", *words])
    arguments.given = arguments.parser.given(words)
    assert by_recipe(arguments) is recipe


def test_both_ways_at_once_are_refused(fails):
    message = fails("train", "d.csv", "--quality", "fast", "--hidden", "8")
    assert "--quality belongs to the recipe" in message and "--hidden describes one network" in message
    assert "--report belongs to the recipe" in fails("train", "d.csv", "--report", "r.html", "--lr", "1")


def test_classes_from_a_table_as_it_comes(run, data, tmp_path):
    pytest.importorskip("matplotlib")
    words = ("--drop", "id,pay,w", "--plot", "c.svg", "--report", "r.html")
    result = run("train", data, "--target", "rich", *words, *FAST)
    assert result.code == 0 and result.err == "", result.err
    assert "numbers: age, town; true/false: member; text: job; dates: since" in result.out
    assert "missing values in age, job" in result.out
    lines = [line.split() for line in result.out.splitlines()]
    parts = [line[0] for line in lines if line and line[0] in ("train", "validation", "test", "constant")]
    assert parts == ["train", "validation", "test", "constant"]
    assert (tmp_path / "c.svg").exists() and "rich of people.csv" in (tmp_path / "r.html").read_text()

    model, prepared = gpumlp.load("m.npz", "cpu"), load_prepared("m.npz", "cpu")
    frame = read_frame("people.csv")
    p = model.predict_proba(frame)
    assert prepared.classes == ["no", "yes"] and prepared.feature_names[0] == "age"
    np.testing.assert_array_equal(prepared.predict(frame), model.predict(frame))

    rows = table(run("predict", "m.npz", data, "--keep", "id", "--proba").out)
    assert rows[0] == ["id", "prediction", "p_no", "p_yes"] and [row[0] for row in rows[1:]] == people()["id"]
    np.testing.assert_allclose(np.array([row[2:] for row in rows[1:]], float), p, rtol=1e-4, atol=1e-6)
    assert [row[1] for row in rows[1:]] == model.predict(frame).tolist()

    from sklearn import metrics

    y = np.array(people()["rich"])
    found = json.loads(run("evaluate", "m.npz", data, "--json").out)
    assert found["figures"]["accuracy"] == pytest.approx(np.mean(model.predict(frame) == y))
    assert found["figures"]["auc"] == pytest.approx(metrics.roc_auc_score(y == "yes", p[:, 1]), abs=1e-4)
    assert found["constant"]["auc"] == 0.5 and [each["name"] for each in found["classes"]] == ["no", "yes"]

    out = run("info", "m.npz").out
    for text in (
        "  age       number\n",
        "category, 2: baker, old, smith",
        "gives       rich, 2 classes: no, yes",
    ):
        assert text in out
    assert json.loads(run("info", "m.npz", "--json").out)["columns"]["since"] == "date"


def test_values_codes_and_weights_in_parquet(run, data, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    words = ("--target", "pay", "--drop", "rich,id", "--weight", "w", "--categorical", "town", "--json")
    result = run("train", data, *words, *FAST)
    assert result.code == 0, result.err
    trained = json.loads(result.out)
    assert trained["columns"]["town"] == "category" and set(trained["figures"]) == set(trained["rows"])
    assert trained["figures"]["test"]["rmse"] < trained["figures"]["constant"]["rmse"]
    model = gpumlp.load("m.npz", "cpu")
    assert model.encoder_.columns["town"].known == ["007", "07", "12", "7"]
    result = run("predict", "m.npz", data, "--keep", "id", "-o", "p.parquet")
    assert result.code == 0, result.err
    found = parquet.read_table(tmp_path / "p.parquet")
    assert found.column("id").to_pylist() == people()["id"], "zeros are lost"
    expected = model.predict(read_frame("people.csv", modes={"town": "text"}))
    np.testing.assert_allclose(found.column("prediction").to_numpy(), expected, rtol=1e-6)
    # rows of numbers without names go by their places
    rows = {
        "age": ["40"] * 60,
        "b": [str(n % 7) for n in range(60)],
        "y": [str(n % 7 > 3) for n in range(60)],
    }
    assert (
        run(
            "train", write(tmp_path / "n.csv", rows), "--target", "y", "--quality", "fast", "--out", "n.npz"
        ).code
        == 0
    )
    np.save(tmp_path / "n.npy", np.array([[40.0, 6], [40, 0]]))
    assert run("predict", "n.npz", "n.npy").out == "prediction\nTrue\nFalse\n"
    np.savez(tmp_path / "n2.npz", X=np.array([[40.0, 6], [40, 0]]), y=np.array(["True", "False"]))
    assert json.loads(run("evaluate", "n.npz", "n2.npz", "--json").out)["figures"]["accuracy"] == 1.0
    # a class as number, and what no one has seen
    other = people(4)
    other["town"], other["job"], other["age"] = (
        ["7", "8", "07", ""],
        ["?", "x", "", "smith"],
        ["", "1e9", "3", "4"],
    )
    assert len(table(run("predict", "m.npz", write(tmp_path / "o.csv", other)).out)) == 5


def test_an_ordered_split(run, data, seen):
    run("train", data, "--target", "pay", "--split", "ordered", "--test-fraction", "0.25", *FAST)
    ids = [frame["id"].texts().tolist() for frame in (seen["X"], seen["X_val"])]
    assert ids == [[str(n) for n in range(96)], [str(n) for n in range(96, 120)]]


def test_weights_of_rows_and_classes(run, data, seen, monkeypatch):
    words = ("train", data, "--target", "rich", "--drop", "pay", "--weight", "w", "--test-fraction", "0")
    run(*words, "--class-weight", "yes=5", *FAST)
    expected = np.array(people()["w"], float) * np.where(np.array(people()["rich"]) == "yes", 5, 1)
    order = np.argsort(seen["X"]["id"].values)
    np.testing.assert_array_equal(seen["w"][order], expected)
    assert "w" not in seen["X"].names

    def fit(self, X, y, **more):
        seen.update(more, y=y)
        raise ValueError("enough")

    monkeypatch.setattr(gpumlp.Trainer, "fit", fit)
    hand = ("--features", "town", "--hidden", "4", "--test-fraction", "0", "--class-weight", "balanced")
    run("train", data, "--target", "rich", "--weight", "w", "--validation-fraction", "0", *hand)
    y, w = seen["y"], seen["sample_weight"]
    rows, rich = np.array(people()["w"], float), np.array(people()["rich"])
    sums = [rows[rich == name].sum() * 160 / (2 * np.sum(rich == name)) for name in ("no", "yes")]
    np.testing.assert_allclose(np.bincount(y, w), sums)


def test_an_interrupt_saves_what_was_learnt(run, data, monkeypatch):
    from gpumlp.training.evaluation import ResidentEvaluation

    real, count = ResidentEvaluation.run, []

    def counting(self):
        count.append(1)
        if len(count) == 8:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(ResidentEvaluation, "run", counting)
    result = run("train", data, "--target", "rich", "--drop", "id,pay,w", *FAST)
    assert result.code == 130 and "what was learnt until then was saved to m.npz" in result.err
    assert gpumlp.load("m.npz", "cpu").networks_[0]["epochs"] == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,y\n", "has a header and no rows"),
        ("a,b,y\n1,2,u\n", "has 1 row, too few for"),
        ("a,b,y\n" + "1,2,u\n3,4,u\n" * 20, "one class only ('u')"),
        ("a,a,y\n" + "1,2,u\n3,4,v\n" * 20, "column name 'a' is there 2 times"),
        ("a,b,y\n" + "1,2,u\n1,2,v\n" * 20, "no column can be used: 'a' has one value only"),
        ("a,b,y\n" + "1,2,u\n3,4,\n" * 20, "line 3: target column 'y': missing value"),
        ("a,b,y\n" + "1,2,u\n3,v\n" * 20, "line 3: 2 cells"),
        (
            "a;b;y\n" + "".join(f"{n},5;{n % 3};{n % 2}\n" for n in range(40)),
            "column 'a': '0,5' has a decimal comma",
        ),
        ("a,y,w\n" + "1,2,-1\n3,v,1\n" * 20, "line 2: -1 is no weight"),
    ],
)
def test_faults_of_tables(fails, tmp_path, text, message):
    (tmp_path / "d.csv").write_text(text)
    weight = ("--weight", "w") if ",w\n" in text else ()
    assert message in fails("train", "d.csv", "--target", "y", *weight, *FAST)
    assert os.listdir(tmp_path) == ["d.csv"]


def test_wrong_words(fails, data):
    assert "--numeric: unknown column 'agee'. Did you mean 'age'?" in fails(
        "train", data, "--target", "rich", "--numeric", "agee"
    )
    assert "there is no class 'si'" in fails("train", data, "--target", "rich", "--class-weight", "si=2")
    assert "--class-weight is for classification" in fails(
        "train", data, "--target", "pay", "--class-weight", "balanced"
    )
    assert "must end in .html" in fails("train", data, "--target", "pay", "--report", "r.txt")


def test_a_text_among_numbers_is_told(run, tmp_path, seen):
    lines = [f"{n},{n % 2}" for n in range(60)]
    lines[33] = "n.k.,1"
    (tmp_path / "d.csv").write_text("\n".join(["a,y", *lines]) + "\n")
    assert (
        "line 35: column 'a' is text because of 'n.k.'" in run("train", "d.csv", "--target", "y", *FAST).out
    )
