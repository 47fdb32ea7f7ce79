"""Messages for common slips, names of other libraries, printing, and pickling of a trainer."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import schedules
from gpumlp.backends import cuda_problem

X = np.random.default_rng(0).normal(size=(12, 3))
LABELS = np.arange(12) % 3


def make(device: str, loss: str = "softmax_cross_entropy", **options: Any) -> gpumlp.Trainer:
    model = gpumlp.MLP([3, 5, 3], "tanh", device=device, dtype="float64", dropout=0.2)
    return gpumlp.Trainer(model, loss=loss, **{"optimizer": "adam", "batch_size": 5, **options})


# ---- what predict answers -----------------------------------------------
@pytest.mark.parametrize("train", [lambda t: t.fit(X, LABELS, epochs=1), lambda t: t.step(X, LABELS)])
def test_only_training_changes_what_predict_answers(device: str, train: Any) -> None:
    trainer = make(device)
    model = trainer.model
    trainer.evaluate(X, LABELS)
    trainer.loss_and_grads(X, LABELS)
    np.testing.assert_array_equal(model.predict(X), model.forward(X))
    assert model.output == "identity"
    train(trainer)
    assert model.output == "softmax"
    np.testing.assert_array_equal(model.predict(X), model.forward(X).argmax(axis=1))


def test_a_callback_sees_the_trained_output(device: str) -> None:
    seen: list[str] = []
    trainer = make(device, callbacks=[lambda t, history: seen.append(t.model.output)])
    trainer.fit(X, LABELS, epochs=1)
    assert seen == ["softmax"]


# ---- shapes -----------------------------------------------
def test_one_row_or_one_feature() -> None:
    with pytest.raises(ValueError, match=r"for one row use X.reshape\(1, -1\)"):
        gpumlp.MLP([3, 1], device="numpy").predict(X[0])
    with pytest.raises(ValueError, match=r"for one feature use X.reshape\(-1, 1\)"):
        gpumlp.MLP([1, 1], device="numpy").predict(X[:, 0])


# ---- data frames -----------------------------------------------
class Frame:
    """As much of a pandas.DataFrame as is read."""

    def __init__(self, **columns: Any) -> None:
        self.data = {name: np.asarray(values) for name, values in columns.items()}
        self.columns, self.dtypes = list(columns), [a.dtype for a in self.data.values()]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array([a.astype(object) for a in self.data.values()]).T

    def to_numpy(self, dtype: Any, na_value: Any) -> np.ndarray:
        return np.array(list(self.data.values()), dtype).T


def test_columns_that_are_not_numbers_are_named() -> None:
    frame = Frame(a=[1.0, 2.0], town=np.array(["x", "y"], object), day=np.array(["2020-01-01"] * 2, "M8[D]"))
    with pytest.raises(
        TypeError, match=r"X has columns that are not numbers: 'town' \(object\), 'day' \(datet"
    ):
        gpumlp.MLP([3, 1], device="numpy").predict(frame)


def test_columns_of_several_kinds_of_numbers_are_converted() -> None:
    model = gpumlp.MLP([3, 1], device="numpy", dtype="float64")
    frame = Frame(a=[0.5, -1.0], b=[3, 4], c=[True, False])
    expected = model.predict([[0.5, 3, 1], [-1, 4, 0]])
    np.testing.assert_array_equal(model.predict(frame), expected)


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    model = gpumlp.MLP([3, 1], device="numpy", dtype="float64")
    frame = pandas.DataFrame({"a": [0.5, -1.0], "b": [3, 4], "c": [True, False]})
    np.testing.assert_array_equal(model.predict(frame), model.predict([[0.5, 3, 1], [-1, 4, 0]]))
    with pytest.raises(TypeError, match=r"columns that are not numbers: 'c' \(category\)"):
        model.predict(frame.assign(c=pandas.Categorical(["u", "v"])))


# ---- names that other libraries use -----------------------------------------------
@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("mse", "squared_error"),
        ("mae", "absolute_error"),
        ("cross_entropy", "softmax_cross_entropy"),
        ("CrossEntropy", "softmax_cross_entropy"),
        ("categorical_crossentropy", "softmax_cross_entropy"),
        ("sparse-categorical-crossentropy", "softmax_cross_entropy"),
        ("nll", "softmax_cross_entropy"),
        ("bce", "binary_cross_entropy"),
        ("bce_with_logits", "binary_cross_entropy"),
        ("logistic", "binary_cross_entropy"),
        ("log_loss", "softmax_cross_entropy"),
    ],
)
def test_losses_of_other_libraries(given: str, ours: str) -> None:
    with pytest.raises(ValueError, match=f"unknown loss '{given}'. Did you mean '{ours}'"):
        make("numpy", given)


@pytest.mark.parametrize(
    ("given", "ours"),
    [("logistic", "sigmoid"), ("linear", "identity"), ("none", "identity"), ("swish", "silu")],
)
def test_activations_of_other_libraries(given: str, ours: str) -> None:
    with pytest.raises(ValueError, match=f"unknown activation '{given}'. Did you mean '{ours}'"):
        gpumlp.MLP([3, 2, 1], given, device="numpy")


def test_momentum_is_an_option_of_sgd() -> None:
    with pytest.raises(ValueError, match=r"Did you mean gpumlp.SGD\(momentum=0.9\)\?"):
        make("numpy", optimizer="momentum")


def test_hints_name_things_that_exist() -> None:
    from gpumlp.activations import ACTIVATIONS
    from gpumlp.errors import ELSEWHERE
    from gpumlp.losses import LOSSES

    for kind, known in (("loss", LOSSES), ("activation", ACTIVATIONS)):
        for given, ours in ELSEWHERE[kind].items():
            assert given not in known and set(ours.split("'")[1::2]) <= set(known)
    assert all(eval(text, {"gpumlp": gpumlp}).momentum == 0.9 for text in ELSEWHERE["optimizer"].values())


# ---- devices -----------------------------------------------
@pytest.mark.parametrize("name", ["gpu", "GPU", "gpu:0"])
def test_gpu_is_cuda(name: str) -> None:
    if cuda_problem():
        with pytest.raises(gpumlp.DeviceError, match="device='cuda:0' cannot be used"):
            gpumlp.get_backend(name)
    else:
        assert gpumlp.get_backend(name) is gpumlp.get_backend("cuda")


def test_gpu_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMLP_DEVICE", "gpu:97")
    with pytest.raises(gpumlp.DeviceError, match="device='cuda:97' cannot be used"):
        gpumlp.get_backend("auto")


def test_warmup_where_trainings_run_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMLP_DEVICE", "numpy")
    assert gpumlp.warmup() == {} == gpumlp.warmup(device="auto")
    with pytest.raises(gpumlp.DeviceError, match="device='cuda:97' cannot be used"):
        gpumlp.warmup(device="cuda:97")


# ---- printing, history -----------------------------------------------
def test_printing(device: str) -> None:
    trainer = make(device, optimizer=gpumlp.Adam(lr=0.01))
    history = trainer.fit(X, LABELS, epochs=2)
    text = repr(trainer)
    assert text.startswith("Trainer(MLP(3-5-3, tanh, ") and "optimizer=Adam(lr=0.01)" in text
    assert "loss='softmax_cross_entropy'" in text and text.endswith("batch_size=5, epoch=2)")
    assert repr(history).startswith(f"History(2 epochs, loss={history.loss[-1]:.4g}, lr=0.01, seconds=")
    assert repr(history).endswith("best_epoch=1)") or repr(history).endswith("best_epoch=0)")
    assert repr(gpumlp.History()) == "History(0 epochs)"


def test_items_of_a_history() -> None:
    history = gpumlp.History({"loss": [2.0, 1.0]})
    assert history["loss"] is history.loss and "loss" in history and "val_loss" not in history
    with pytest.raises(KeyError, match="no metric 'val_loss' was recorded; recorded: loss"):
        history["val_loss"]
    with pytest.raises(TypeError):
        iter(history)  # type: ignore[call-overload]


# ---- pickling -----------------------------------------------
@pytest.mark.parametrize("continue_by", ["fit", "step"])
def test_a_pickled_trainer_continues_as_if_it_had_not_been(device: str, continue_by: str) -> None:
    def go_on(trainer: gpumlp.Trainer) -> gpumlp.Trainer:
        if continue_by == "fit":
            trainer.fit(X, LABELS, epochs=2, validation=0.25)
        else:
            trainer.step(X, LABELS)
        return trainer

    trainer = make(device, schedule="exponential", l2=0.01)
    trainer.fit(X, LABELS, epochs=2)
    trainer.step(X, LABELS)  # a recorded plan, which cannot be pickled, is kept for the next step
    stored = pickle.dumps(trainer)
    again = go_on(pickle.loads(stored))
    assert again.model is not trainer.model and repr(again) == repr(go_on(trainer))
    for (W, b), (W0, b0) in zip(again.model.get_parameters(), trainer.model.get_parameters(), strict=True):
        np.testing.assert_array_equal(W, W0)
        np.testing.assert_array_equal(b, b0)
    assert again.evaluate(X, LABELS) == trainer.evaluate(X, LABELS)
    assert pickle.loads(pickle.dumps(pickle.loads(stored))).optimizer.t == 7


def test_a_pickled_trainer_keeps_its_loss_scale() -> None:
    if cuda_problem():
        pytest.skip(f"no CUDA device: {cuda_problem()}")
    model = gpumlp.MLP([3, 5, 3], device="cuda")
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", precision="float16")
    trainer.fit(X, LABELS, epochs=1)
    trainer.engine.precision.scaler[0] = 2.0**10
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(trainer))))  # the second time without buffers
    again.step(X, LABELS)
    trainer.step(X, LABELS)
    assert again.engine.precision.loss_scale() == trainer.engine.precision.loss_scale() == (2.0**10, 0)


# ---- import -----------------------------------------------
def test_import_leaves_out_what_only_some_programs_use() -> None:
    names = {"difflib", "zipfile", "gpumlp.model.saved", "gpumlp.training.saved"}
    code = f"import sys, gpumlp; print(*({names} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert gpumlp.ModelFileError.__name__ == "ModelFileError" and "load" in dir(gpumlp)


def test_a_typo_in_the_metric_to_monitor(device: str) -> None:
    trainer, stop = make(device), gpumlp.EarlyStopping(monitor="val_acc")
    with pytest.raises(ValueError, match=r"unknown metric 'val_acc'\. Did you mean 'val_accuracy'"):
        trainer.fit(X, LABELS, epochs=1, validation=(X, LABELS), early_stopping=stop)


def test_no_class_is_read_from_nan(device: str) -> None:
    """Class 0 would look like an answer."""
    model = gpumlp.MLP([2, 3], device=device)
    model.output = "softmax"
    model.flat[...] = np.nan
    with pytest.raises(ValueError, match=r"output is NaN \(row 0\).*diverged"):
        model.predict(np.zeros((4, 2)))
    assert np.isnan(model.forward(np.zeros((4, 2)))).all()


def test_warmup_goes_over_to_a_schedule() -> None:
    with pytest.raises(TypeError, match=r"after='cosine'; expected an object such as Cosine\(\)"):
        schedules.Warmup(after="cosine")  # type: ignore[arg-type]
