"""Estimators of tables: columns of all kinds, what is refused, weights, time, files."""

import json
import time
import warnings

import numpy as np
import pytest
from sklearn.base import clone

import gpumlp
from gpumlp import ModelFileError, TabularClassifier, TabularRegressor

FAST = {"quality": "fast", "random_state": 0, "device": "cpu"}
N = 240


def table(n=N, seed=0):
    """A dict of columns of all kinds; y depends on several of them."""
    rng = np.random.default_rng(seed)
    job = rng.choice(["baker", "smith", "nurse"], n).astype(object)
    age = rng.uniform(20, 60, n)
    X = {
        "age": np.where(rng.random(n) < 0.1, np.nan, age),
        "job": np.where(rng.random(n) < 0.1, None, job),
        "member": rng.random(n) < 0.5,
        "since": np.datetime64("2020-01-01", "D") + rng.integers(0, 900, n),
        "children": rng.integers(0, 4, n),
        "nothing": np.full(n, np.nan),
        "always": np.full(n, 7),
        "id": np.array([f"row{k}" for k in rng.permutation(n)], object),
    }
    y = age / 10 + 3 * (job == "smith") + 2 * X["member"] + X["children"]
    return X, y


@pytest.fixture(scope="module")
def regressor():
    X, y = table()
    return TabularRegressor(**FAST).fit(X, y)


def test_columns_of_all_kinds(regressor):
    X, y = table(seed=1)
    assert regressor.columns_ == {
        "age": "number",
        "job": "category",
        "member": "flag",
        "since": "date",
        "children": "number",
        "nothing": "not used: it is empty",
        "always": "not used: it has one value only",
        "id": "not used: it has a text of its own in nearly every row",
    }
    assert regressor.score(X, y) > 0.8
    assert regressor.validation_scores_["rmse"] < 0.5 * regressor.validation_scores_["constant_rmse"]


def test_repr_shows_the_columns(regressor):
    assert repr(regressor).endswith("# columns: 2 number, 1 flag, 1 category, 1 date, 3 not used; 12 inputs")


def test_columns_in_another_order_of_other_types(regressor):
    X, _ = table(seed=1)
    expected = regressor.predict(X)
    other = dict(reversed(X.items()))
    other["children"] = X["children"].astype(np.int8)
    other["more"] = np.zeros(N)
    np.testing.assert_array_equal(regressor.predict(other), expected)


def test_data_frames_give_the_same(regressor):
    X, _ = table(seed=1)
    expected = regressor.predict(X)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X)
    frame["children"] = frame["children"].astype("Int64")
    frame["job"] = frame["job"].astype("category")
    np.testing.assert_array_equal(regressor.predict(frame), expected)
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    plain = {k: v.tolist() if v.dtype.kind == "O" else v for k, v in X.items()}
    np.testing.assert_array_equal(regressor.predict(polars.DataFrame(plain)), expected)


def test_unseen_and_missing_values_are_answered(regressor):
    X, _ = table(seed=1)
    for name, value in (("job", "astronaut"), ("job", None), ("age", np.nan), ("age", np.inf)):
        changed = {**X, name: np.array([value] * N, object if name == "job" else float)}
        assert np.isfinite(regressor.predict(changed)).all()


def test_a_column_that_is_missing_is_named(regressor):
    X, _ = table()
    with pytest.raises(ValueError, match=r"lacks a column .* 'job'"):
        regressor.predict({k: v for k, v in X.items() if k != "job"})


def test_a_column_of_another_kind_is_named(regressor):
    X, _ = table()
    with pytest.raises(ValueError, match="'age' has 'old'; expected numbers"):
        regressor.predict({**X, "age": np.array(["old"] * N, object)})
    with pytest.raises(ValueError, match="'since' has 'Monday'; expected dates"):
        regressor.predict({**X, "since": np.array(["Monday"] * N, object)})
    with pytest.raises(ValueError, match="'since' has values of kind 'number'; expected dates"):
        regressor.predict({**X, "since": np.zeros(N)})


def test_dates_and_numbers_may_come_as_text(regressor):
    X, _ = table(seed=1)
    texts = {**X, "since": X["since"].astype(str), "children": X["children"].astype(str)}
    np.testing.assert_array_equal(regressor.predict(texts), regressor.predict(X))


def test_answers_stay_within_the_targets():
    X = np.linspace(-1, 1, 200).reshape(-1, 1)
    answers = TabularRegressor(**FAST).fit(X, X[:, 0]).predict([[-50.0], [50.0]])
    assert (np.abs(answers) <= 1).all()


def test_roles_of_columns_can_be_set():
    X, y = table()
    X = {k: X[k] for k in ("age", "job", "children")}
    fitted = TabularRegressor(**FAST, categorical=["children"], drop=["job"]).fit(X, y)
    assert fitted.columns_ == {"age": "number", "job": "not used: it was not wanted", "children": "category"}
    texts = {"size": np.array(["1.5", "2", None, "10"] * 60, object)}
    fitted = TabularRegressor(**FAST, numeric=["size"]).fit(texts, np.arange(N))
    assert fitted.columns_ == {"size": "number"}
    with pytest.raises(ValueError, match="drop='who'; expected names of columns"):
        TabularRegressor(**FAST, drop=["who"]).fit(X, y)
    with pytest.raises(TypeError, match="expected a list of columns"):
        TabularRegressor(**FAST, drop="job").fit(X, y)


def test_categories_of_many_values_are_learnt():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 120, 4000)
    y = rng.normal(size=120)[codes]
    X = {"shop": np.array([f"s{k}" for k in codes], object)}
    fitted = TabularRegressor(**FAST).fit(X, y)
    assert fitted.encoder_.code_sizes == [121]
    assert fitted.score(X, y) > 0.95
    assert np.isfinite(fitted.predict({"shop": ["new", None]})).all()


@pytest.mark.parametrize(
    "labels",
    [["a", "b", "c"], [True, False], [3, 7], [0.5, 1.5, 2.0], [10**17, 10**17 + 1]],
    ids=["text", "truth", "int", "float", "long"],
)
def test_labels_of_any_kind(labels, tmp_path):
    X, _ = table()
    y = np.array(labels)[np.arange(N) % len(labels)]
    X = {"which": np.arange(N) % len(labels), "noise": X["age"]}
    if y.dtype.kind == "f":
        y = y.astype(str).astype(object)
    fitted = TabularClassifier(**FAST).fit(X, y)
    assert (fitted.predict(X) == y).mean() > 0.95
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, rtol=1e-5)
    fitted.save(tmp_path / "m.npz")
    again = gpumlp.load(tmp_path / "m.npz", device="cpu")
    assert again.classes_.dtype == fitted.classes_.dtype
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))


def test_one_class_and_missing_labels_are_refused():
    X, _ = table()
    with pytest.raises(ValueError, match=r"y has one class only \('a'\)"):
        TabularClassifier(**FAST).fit(X, ["a"] * N)
    with pytest.raises(ValueError, match=r"NaN \(row 3\)"):
        TabularClassifier(**FAST).fit(X, ["a", "b", "a", None] * (N // 4))
    with pytest.raises(ValueError, match="y has values that are no numbers"):
        TabularRegressor(**FAST).fit(X, ["a"] * N)


def test_labels_that_are_no_classes_are_refused():
    X, _ = table()
    with pytest.raises(ValueError, match="a label of its own in every row"):
        TabularClassifier(**FAST).fit(X, [f"row{k}" for k in range(N)])
    with pytest.raises(ValueError, match="mixes int, str"):
        TabularClassifier(**FAST).fit(X, np.array([1, "a"] * (N // 2), object))


def test_classes_of_one_row_each_but_for_one():
    X, _ = table()
    y = ["many"] * 100 + [f"one{k}" for k in range(N - 100)]
    assert len(TabularClassifier(**FAST).fit(X, y).classes_) == N - 99


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_targets_of_any_size(size):
    X, y = table()
    answers = TabularRegressor(**FAST).fit(X, size * y).predict(X)
    assert np.corrcoef(answers / size, y)[0, 1] > 0.9


def test_a_refused_fit_changes_nothing(regressor):
    X, y = table()
    before = regressor.predict(X)
    with pytest.raises(ValueError):
        regressor.fit(X, y[:-1])
    np.testing.assert_array_equal(regressor.predict(X), before)


@pytest.mark.parametrize("wrong", [{"quality": "good"}, {"n_networks": 0}, {"time_limit": 0}])
def test_parameters_are_checked(wrong):
    X, y = table()
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TabularRegressor(**{**FAST, **wrong}).fit(X, y)


def test_the_same_random_state_gives_the_same():
    X, y = table()
    one = TabularRegressor(**{**FAST, "quality": "medium"}, n_networks=3).fit(X, y)
    np.testing.assert_array_equal(clone(one).fit(X, y).predict(X), one.predict(X))


def test_rows_for_validation():
    X, y = table()
    X_val, y_val = table(seed=2)
    fitted = TabularRegressor(**FAST).fit(X, y, X_val=dict(reversed(X_val.items())), y_val=y_val)
    rmse = np.sqrt(np.mean((fitted.predict(X_val) - y_val) ** 2))
    np.testing.assert_allclose(fitted.validation_scores_["rmse"], rmse, rtol=1e-5)
    with pytest.raises(ValueError, match="together"):
        TabularRegressor(**FAST).fit(X, y, X_val=X_val)


def test_weights_of_rows_and_classes():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y = (rng.random(400) < 0.5).astype(int)  # X says nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_class = TabularClassifier(**FAST, class_weight={0: 20, 1: 1}).fit(X, y)
        by_row = TabularClassifier(**FAST).fit(X, y, sample_weight=np.where(y == 0, 20.0, 1.0))
    assert by_class.predict_proba(X)[:, 0].mean() > 0.85
    np.testing.assert_array_equal(by_class.predict_proba(X), by_row.predict_proba(X))


def test_short_time_for_a_sorted_table():
    """Fewer rows are still some of every class: an answer, and no error about one class."""
    y = np.repeat(["a", "b"], [15_000, 5])
    X = np.random.default_rng(0).normal(size=(len(y), 2))
    est = TabularClassifier(quality="fast", time_limit=0.001, random_state=0, device="cpu").fit(X, y)
    assert est.predict_proba(X).shape == (len(y), 2)


def test_time_limit_is_kept():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 6))
    start = time.monotonic()
    fitted = TabularRegressor(n_networks=200, time_limit=3, random_state=0, device="cpu").fit(X, X[:, 0])
    assert time.monotonic() - start < 30  # not a timing: 200 networks take minutes
    assert len(fitted.networks_) < 200
    assert any("time" in note for note in fitted.notes_)
    assert fitted.score(X, X[:, 0]) > 0.5


def test_notes():
    rng = np.random.default_rng(0)
    X, y = {"a": rng.normal(size=300), "row": np.arange(300)}, rng.normal(size=300) ** 3
    with pytest.warns(UserWarning, match="'row' looks like a row number"):
        fitted = TabularRegressor(**FAST).fit(X, y)
    assert any("no better than that of a constant" in note for note in fitted.notes_)
    # rows drawn at random, as a split leaves them; and whole numbers that count nothing
    some = rng.permutation(300)[:240]
    X = {"a": X["a"][some], "row": X["row"][some] + 7.0, "many": rng.integers(0, 300, 240)}
    with pytest.warns(UserWarning, match="'row' looks like a row number"):
        fitted = TabularRegressor(**FAST).fit(X, y[some])
    assert sum("row number" in note for note in fitted.notes_) == 1


def test_several_targets(tmp_path):
    X, y = table()
    two = np.column_stack([y, -100 * y])
    fitted = TabularRegressor(**FAST).fit(X, two)
    assert fitted.predict(X).shape == (N, 2)
    assert fitted.score(X, two) > 0.8


def test_a_file_gives_the_estimator_back(tmp_path, regressor):
    X, _ = table(seed=3)
    path = tmp_path / "model.npz"
    regressor.save(path)
    again = gpumlp.load(path, device="cpu")
    assert type(again) is TabularRegressor
    np.testing.assert_array_equal(again.predict(X), regressor.predict(X))
    for name in ("columns_", "notes_", "validation_scores_", "n_features_in_"):
        assert getattr(again, name) == getattr(regressor, name)
    assert again.get_params()["quality"] == "fast"


def test_a_file_of_an_ensemble_is_an_ensemble(tmp_path):
    ensemble = gpumlp.Ensemble([gpumlp.MLP([2, 3, 1], seed=s, device="cpu") for s in range(2)])
    ensemble.save(tmp_path / "e.npz")
    assert type(gpumlp.load(tmp_path / "e.npz", device="cpu")) is gpumlp.Ensemble


@pytest.mark.parametrize(
    "path, value",
    [
        (["version"], 2),
        (["estimator"], "os.system"),
        (["encoder", "columns", "age", "points"], [1, 0]),
        (["encoder", "columns", "age", "kind"], "unknown"),
        (["encoder", "columns", "job"], None),
        (["encoder", "names"], ["age", "age"]),
        (["target", "mean"], [0.0, 1.0]),
        (["target"], {"labels": [0, 1], "dtype": "object"}),
        (["reports"], {}),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, regressor, path, value):
    regressor.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as archive:
        arrays = dict(archive)
    header = json.loads(arrays.pop("header").tobytes())
    entry = header["extra"]["tabular"]
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "bad.npz", header=text, **arrays)
    with pytest.raises(ModelFileError, match="is not a usable gpumlp model"):
        gpumlp.load(tmp_path / "bad.npz", device="cpu")


def test_on_every_executor(device):
    """Numbers, codes and other inputs; answers of the device's networks are those of the same on the CPU."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 70, 600)
    X = {"a": rng.normal(size=600), "shop": np.array([f"s{k}" for k in codes], object), "b": codes % 2 == 0}
    options = {**FAST, "quality": "medium", "device": device}
    fitted = TabularRegressor(**options, n_networks=2).fit(X, X["a"] + X["b"])
    assert fitted.ensemble_.models[0].device == gpumlp.get_backend(device).device
    answers = fitted.predict(X)
    assert np.corrcoef(answers, X["a"] + X["b"])[0, 1] > 0.95
    fitted.ensemble_.to("cpu")
    np.testing.assert_allclose(fitted.predict(X), answers, rtol=1e-4, atol=1e-4)


def test_progress_is_told():
    X, y = table(600)
    told = []
    options = {**FAST, "quality": "medium"}
    fitted = TabularRegressor(**options, n_networks=3).fit(X, y, progress=told.append)
    last = told[-1]
    assert (last.networks, last.training) == (3, 0)
    assert last.epochs == last.of_epochs == sum(each["epochs"] for each in fitted.networks_)
    assert all(one.epochs <= two.epochs for one, two in zip(told, told[1:], strict=False))
    assert last.scores["rmse"] == pytest.approx(fitted.validation_scores_["rmse"], rel=1e-5)
    quiet = TabularRegressor(**options, n_networks=3).fit(X, y)
    np.testing.assert_array_equal(quiet.predict(X), fitted.predict(X))
    with pytest.raises(TypeError, match="progress=True; expected something that can be called"):
        TabularRegressor(**options).fit(X, y, progress=True)
    with pytest.raises(RuntimeError, match="enough"):
        TabularRegressor(**options).fit(X, y, progress=_enough)


def _enough(_):
    raise RuntimeError("enough")
