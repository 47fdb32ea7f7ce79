"""Data files of all kinds through train, evaluate and predict; labels as they are written; --json."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest

from gpumlp.preparation import load_prepared
from gpumlp.tables import read_frame

WORDS = ("--epochs", 2, "--hidden", 4, "--out", "m.npz")


def write(path, columns: dict[str, list], delimiter: str = ",") -> str:
    rows = zip(*columns.values(), strict=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([list(columns), *rows])
    return str(path)


def columns(labels: list[str], n: int = 120, seed: int = 0) -> dict[str, list]:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    which = np.digitize(a, np.quantile(a, np.linspace(0, 1, len(labels) + 1)[1:-1]))
    return {"a": a.tolist(), "b": b.tolist(), "y": [labels[k] for k in which]}


@pytest.mark.parametrize(
    "labels",
    [
        ["01001", "01003", "36061"],
        ["007", "07", "7"],
        ["12E4", "13E4", "3E10"],
        ["10_1", "10_2"],
        ["7204519330086121", "9204519330086123"],
        ["763158003000004101", "763158003000004102", "763158003000004103"],
        ["1.1", "1.10", "1.2"],
        ["0x1F", "0x20"],
        ["+1", "-1"],
        ["True", "False"],
        ["YES", "NO"],
        ["-1", "0", "1"],
    ],
)
def test_labels_stay_as_they_are_written(run, tmp_path, labels):
    data = write(tmp_path / "t.csv", columns(labels))
    task = ("--task", "classification")
    assert run("train", data, "--target", "y", *task, *WORDS).code == 0
    classes = load_prepared("m.npz", "cpu").classes
    assert sorted(classes) == sorted(labels)
    assert run("evaluate", "m.npz", data).code == 0
    assert set(run("predict", "m.npz", data).out.split()[1:]) <= set(labels)


@pytest.mark.parametrize("labels", [["763158003000004101", "763158003000004102"], ["-9204519330086123", "5"]])
def test_long_integers_are_the_same_in_all_files(run, tmp_path, labels):
    given = columns(labels)
    data = write(tmp_path / "t.csv", given)
    X, y = np.column_stack([given["a"], given["b"]]), np.array(list(map(int, given["y"])))
    np.savez(tmp_path / "t.npz", X=X, y=y, feature_names=["a", "b"])
    files = [data, "t.npz"]
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        pass
    else:
        parquet.write_table(pa.table({"a": X[:, 0], "b": X[:, 1], "y": y}), tmp_path / "t.parquet")
        files.append("t.parquet")
    for trained in files:
        target = () if trained == "t.npz" else ("--target", "y")
        assert run("train", trained, *target, "--task", "classification", *WORDS).code == 0
        assert sorted(load_prepared("m.npz", "cpu").classes) == sorted(labels)
        for other in files:
            result = run("evaluate", "m.npz", other)
            assert result.code == 0, (trained, other, result.err)


@pytest.mark.parametrize(
    ("trained", "other"),
    [
        (["False", "True"], ["FALSE", "TRUE"]),
        (["no", "yes"], ["NO", "Yes"]),
        (["n", "y"], ["N", "Y"]),
    ],
)
def test_yes_and_no_in_another_case(run, tmp_path, trained, other):
    one = write(tmp_path / "1.csv", columns(trained))
    two = write(tmp_path / "2.csv", columns(other))
    assert run("train", one, "--target", "y", *WORDS).code == 0
    assert load_prepared("m.npz", "cpu").classes == trained
    one, two = (json.loads(run("evaluate", "m.npz", data, "--json").out)["figures"] for data in (one, two))
    assert one == two
    both = columns(trained)
    both["y"] = [label.upper() if n % 2 else label for n, label in enumerate(both["y"])]
    assert run("train", write(tmp_path / "3.csv", both), "--target", "y", *WORDS).code == 0
    assert len(load_prepared("m.npz", "cpu").classes) == 2


def test_a_target_with_exponents_is_a_quantity(run, tmp_path):
    given = columns(["u", "v"])
    given["y"] = [f"{abs(a) / 1e4:.3g}" for a in given["a"]]
    result = run("train", write(tmp_path / "t.csv", given), "--target", "y", *WORDS)
    assert result.code == 0 and "regression (the target has fractions)" in result.out
    given["y"] = [f"{n % 50}e4" for n in range(120)]
    result = run("train", write(tmp_path / "t.csv", given), "--target", "y", *WORDS)
    assert "regression (the target has 50 distinct whole numbers" in result.out


def test_folders_and_several_files(run, tmp_path):
    (tmp_path / "parts").mkdir()
    given = columns(["u", "v"])
    first = {name: values[:70] for name, values in given.items()}
    second = {name: given[name][70:] for name in ("y", "b", "a")}
    whole = write(tmp_path / "whole.csv", given)
    one = write(tmp_path / "parts/1.csv", first)
    two = write(tmp_path / "parts/2.tsv", second, "\t")
    (tmp_path / "parts/README.md").write_text("about")
    figures = []
    for data in ([whole], ["parts"], [one, two]):
        result = run("train", *data, "--target", "y", *WORDS, "--json")
        assert result.code == 0, result.err
        figures.append(json.loads(result.out))
        predicted = run("predict", "m.npz", *data)
        assert len(predicted.out.splitlines()) == 121
    assert figures[0] == figures[1] == figures[2]
    assert "note      not read: " in run("train", "parts", "--target", "y", *WORDS).out
    assert "README.md" in run("evaluate", "m.npz", "parts").err


def test_predictions_beside_columns_of_the_file(run, tmp_path):
    given = columns(["u", "v"])
    given = {
        "id": [f"{n:04d}" for n in range(120)],
        'size, "gross"': [f"{n}.10" for n in range(120)],
        **given,
    }
    data = write(tmp_path / "t.csv", given)
    assert run("train", data, "--target", "y", "--features", "a,b", *WORDS).code == 0
    result = run("predict", "m.npz", data, "--keep", 'id,"size, ""gross"""', "--proba")
    assert result.code == 0 and result.err == ""
    rows = list(csv.reader(result.out.splitlines()))
    assert rows[0] == ["id", 'size, "gross"', "prediction", "p_u", "p_v"]
    assert [row[:2] for row in rows[1:]] == [[f"{n:04d}", f"{n}.10"] for n in range(120)]
    plain = run("predict", "m.npz", data, "--proba")
    assert [row[2:] for row in rows] == list(csv.reader(plain.out.splitlines()))


def test_predictions_as_parquet(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    given = {"id": list(range(120)), **columns(["1", "2"])}
    given["y"] = [3.7 * a for a in given["a"]]
    data = write(tmp_path / "t.csv", given)
    assert run("train", data, "--target", "y", "--drop", "id", *WORDS).code == 0
    result = run("predict", "m.npz", data, "--keep", "id", "-o", "p.parquet")
    assert result.code == 0 and "120 predictions written to p.parquet" in result.err
    table = parquet.read_table(tmp_path / "p.parquet")
    assert table.column("id").to_pylist() == list(range(120))
    values = load_prepared("m.npz", "cpu").predict(np.column_stack([given["a"], given["b"]]))
    np.testing.assert_array_equal(table.column("prediction").to_numpy(), values.astype(np.float32))
    printed = run("predict", "m.npz", data).out.split()[1:]
    np.testing.assert_array_equal(np.array(printed, np.float32), table.column("prediction").to_numpy())


def test_parquet_is_read(run, tmp_path):
    pytest.importorskip("pyarrow")
    from gpumlp.tables.write import write_parquet

    given = columns(["u", "v"])
    data = write(tmp_path / "t.csv", given)
    with open(tmp_path / "t.parquet", "wb") as file:
        write_parquet(read_frame(data), file)
    outputs = [run("train", name, "--target", "y", *WORDS, "--json").out for name in (data, "t.parquet")]
    assert outputs[0] == outputs[1] != ""


def test_an_index_is_told(run, tmp_path):
    given = {"": list(range(120)), **columns(["u", "v"])}
    result = run("train", write(tmp_path / "t.csv", given), "--target", "y", *WORDS)
    assert "counts the rows: an index, left out" in result.out and "120 rows, 2 features" in result.out
    assert load_prepared("m.npz", "cpu").feature_names == ["a", "b"]
    given = {"id": list(range(1, 121)), **columns(["u", "v"])}
    result = run("train", write(tmp_path / "t.csv", given), "--target", "y", *WORDS)
    assert "column 'id' counts the rows; leave it out with --drop id" in result.out


@pytest.mark.parametrize(
    "words", [["--drop", '"size, gross"'], ["--features", "a,b"], ["--drop", "size\\, gross"]]
)
def test_names_with_commas(run, fails, tmp_path, words):
    given = {"size, gross": ["x"] * 120, **columns(["u", "v"])}
    data = write(tmp_path / "t.csv", given)
    assert run("train", data, "--target", "y", *words, *WORDS).code == 0
    assert "a name with a comma is written in quotes" in fails(
        "train", data, "--target", "y", "--drop", "size, gross"
    )


def test_encoding_decimal_and_delimiter(run, fails, tmp_path):
    given = columns(["u", "v"])
    given["größe"] = [f"{v:.3f}".replace(".", ",") for v in given.pop("a")]
    given["b"] = [f"{v:.3f}".replace(".", ",") for v in given["b"]]
    text = (tmp_path / write(tmp_path / "t.csv", given, ";")).read_text(encoding="utf-8").replace(";", ":")
    (tmp_path / "t.csv").write_bytes(text.encode("cp1252"))
    assert "--encoding cp1252" in fails("train", "t.csv", "--target", "y")
    assert "--delimiter" in fails("train", "t.csv", "--target", "y", "--encoding", "cp1252")
    layout = ("--encoding", "cp1252", "--delimiter", ":")
    assert "give --decimal ," in fails("train", "t.csv", "--target", "y", *layout)
    assert run("train", "t.csv", "--target", "y", *layout, "--decimal", ",", *WORDS).code == 0
    assert run("evaluate", "m.npz", "t.csv", *layout, "--decimal", ",").code == 0
    assert run("predict", "m.npz", "t.csv", *layout, "--decimal", ",").code == 0
    assert "is neither . nor ," in fails("train", "t.csv", "--decimal", ";")
    assert "is not one character" in fails("train", "t.csv", "--delimiter", "::")


def test_json_for_programs(run, tmp_path):
    data = write(tmp_path / "t.csv", columns(["u", "v"]))
    result = run("train", data, "--target", "y", *WORDS, "--json")
    trained = json.loads(result.out)
    assert (
        trained["model"] == "m.npz"
        and trained["epochs"] == 2
        and set(trained["figures"]) == set(trained["rows"])
    )
    figures = json.loads(run("evaluate", "m.npz", data, "--json").out)
    assert figures["rows"] == 120 and set(figures["figures"]) == {"loss", "accuracy", "auc"}
    assert [each["name"] for each in figures["classes"]] == ["u", "v"]
    facts = json.loads(run("info", "m.npz", "--json").out)
    assert facts["features"] == ["a", "b"] and facts["classes"] == ["u", "v"] and facts["inputs"] == 2


def test_packed_files(run, tmp_path):
    data = write(tmp_path / "t.csv", columns(["u", "v"]))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    outputs = [run("train", name, "--target", "y", *WORDS, "--json").out for name in (data, "t.csv.gz")]
    assert outputs[0] == outputs[1] != ""


def test_results_never_overwrite_one_of_several_files(fails, tmp_path):
    one = write(tmp_path / "1.csv", columns(["u", "v"]))
    two = write(tmp_path / "2.csv", columns(["u", "v"]))
    assert "2.csv" in fails("predict", "m.npz", one, two, "-o", two)


def test_files_in_two_places_are_refused(fails, tmp_path):
    assert "(give all files in one place)" in fails("train", "a.csv", "--target", "y", "b.csv")
