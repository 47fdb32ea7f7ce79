"""`gpumlp.register`: what is refused and how, what is known afterwards, and what objects stand for."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import gpumlp
from gpumlp.activations import ACTIVATIONS
from gpumlp.losses import LOSSES
from gpumlp.optimizers import OPTIMIZERS
from gpumlp.verify.texts import explain

D = "(z[c] - y[row * ld_y + c])"


class Softsign(gpumlp.Activation):
    name = "softsign"
    forward = "z / (C(1) + fabs(z))"
    derivative = "((C(1) - fabs(a)) * (C(1) - fabs(a)))"

    def f(self, z: np.ndarray) -> np.ndarray:
        return z / (1 + np.abs(z))

    def df(self, a: np.ndarray) -> np.ndarray:
        return (1 - np.abs(a)) ** 2


def _reference(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(1 + ((z - y) / delta) ** 2)
    return delta**2 * (root - 1), (z - y) / root


PSEUDO_HUBER = gpumlp.Loss(
    "pseudo_huber",
    f"delta * delta * (sqrt(C(1) + {D} / delta * ({D} / delta)) - C(1))",
    f"const C dc = {D}, xc = dc / delta;\nconst C gc = dc * rsqrt(C(1) + xc * xc);",
    _reference,
    delta=2.0,
)


@dataclass
class Signum(gpumlp.Optimizer):
    name: ClassVar[str] = "signum"
    lr: float = 0.01
    beta: float = 0.5
    body: ClassVar[str] = """m = beta * m + (C(1) - beta) * grad;
const C delta = lr * ((m > C(0) ? C(1) : C(0)) - (m < C(0) ? C(1) : C(0)));"""

    def state_names(self) -> tuple[str, ...]:
        return ("m",)

    def constants(self) -> dict[str, float]:
        return {"beta": self.beta}

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        m, beta = values["m"], values["beta"]
        m[...] = beta * m + (1 - beta) * grad
        return lr * np.sign(m)


def activation(**changes: Any) -> gpumlp.Activation:
    parts = {"name": "own", "forward": Softsign.forward, "derivative": Softsign.derivative}
    made = Softsign()
    return gpumlp.Activation(**{**parts, "f": made.f, "df": made.df, **changes})


def rule(**changes: Any) -> type:
    return dataclass(type("Own", (Signum,), {"name": "own", "__annotations__": {}, **changes}))


def test_what_is_registered_is_known_by_its_name() -> None:
    for thing in (Softsign, PSEUDO_HUBER, Signum):
        assert gpumlp.register(thing) is thing
        assert gpumlp.register(thing) is thing  # again
    assert gpumlp.register(Softsign()).name == "softsign"  # another object that says the same
    gpumlp.register(replace(PSEUDO_HUBER, delta=0.5))
    assert LOSSES["pseudo_huber"].delta == 2.0
    model = gpumlp.MLP([2, 3, 1], "softsign", device="cpu")
    trainer = gpumlp.Trainer(model, loss="pseudo_huber", optimizer="signum")
    assert (trainer.loss.name, type(trainer.optimizer)) == ("pseudo_huber", Signum)


def test_objects_are_registered_on_the_way(device: str) -> None:
    X = np.random.default_rng(0).normal(size=(30, 2))
    model = gpumlp.MLP([2, 3, 4, 1], [Softsign(), "tanh"], device=device, dtype="float64")
    trainer = gpumlp.Trainer(model, loss=replace(PSEUDO_HUBER, delta=0.5), optimizer=Signum())
    assert model.activations == ["softsign", "tanh"] and trainer.objective.delta == 0.5
    assert gpumlp.check_gradients(trainer, X, X[:, 0]).error < 1e-7
    assert trainer.fit(X, X[:, 0], epochs=1, progress=False).loss
    for registry, name in ((ACTIVATIONS, "softsign"), (LOSSES, "pseudo_huber")):
        assert name in registry


SQUARED_SLOPE = replace(PSEUDO_HUBER, reference=lambda z, y, d: (_reference(z, y, d)[0], z - y))
WRONG_DERIVATIVE = [
    (activation(df=lambda a: 1.01 * (1 - np.abs(a)) ** 2), r"derivative of activation 'own'.* at z = "),
    (
        SQUARED_SLOPE,
        r" at z = [-\d.]+, y = [-\d.]+ \(row \d+, output \d\): derivative .*, central ",
    ),
]


@pytest.mark.parametrize(("thing", "message"), WRONG_DERIVATIVE, ids=["activation", "loss"])
def test_a_wrong_derivative_is_refused_with_its_place(thing: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpumlp.register(thing)
    assert thing.name not in {**ACTIVATIONS, **LOSSES}


def test_a_gradient_that_is_none_on_purpose() -> None:
    """A step with the slope of the sigmoid, as in networks with spikes."""
    step = gpumlp.Activation(
        "step",
        "z > C(0) ? C(1) : C(0)",
        "exp(-fabs(z)) / ((C(1) + exp(-fabs(z))) * (C(1) + exp(-fabs(z))))",
        lambda z: (z > 0).astype(z.dtype),
        lambda z: np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))) ** 2,
        needs_z=True,
    )
    with pytest.raises(ValueError, match="wrong derivative"):
        gpumlp.register(step)
    gpumlp.register(step, check=False)
    assert "step" in ACTIVATIONS


OTHER = "and the NumPy reference"
TEXTS = [
    (activation(forward="z /\n  (C(1) + fabs(y))"), r"activation 'own'.*line 2 of `forward`: .*y.*\n +2 \| "),
    (activation(derivative="(C(1) - fabs(a)"), r"line 1 of `derivative`"),
    (replace(PSEUDO_HUBER, gradient=f"const C dc = {D};\nconst C gc = oops;"), r"line 2 of `gradient`.*oops"),
    (replace(PSEUDO_HUBER, value="delta * squares"), r"line 1 of `value`.*squares"),
    (rule(body="m = grad;\nconst C delta = lr * mm;"), r"rule 'own'.*line 2 of `text`.*mm"),
    (activation(forward="z / (C(1.01) + fabs(z))"), rf"`forward` {OTHER} `f` differ. Worst at z = "),
    (activation(derivative="C(1)"), rf"`derivative` {OTHER} `df` differ"),
    (replace(PSEUDO_HUBER, value=f"{D} * {D}"), rf"`value` {OTHER} `reference` differ.*row = "),
    (replace(PSEUDO_HUBER, gradient=f"const C gc = {D};"), rf"`gradient` {OTHER} `reference` differ"),
    (rule(body="m = grad;\nconst C delta = lr * m;"), rf"`text \(step 1, p\)` {OTHER} `rule` differ"),
]


def test_a_text_that_does_not_compile_or_says_something_else(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "numpy":
        pytest.skip("compiles nothing")
    monkeypatch.setenv("GPUMLP_DEVICE", device)
    for thing, message in TEXTS:
        with pytest.raises(ValueError, match=f"(?s){message}"):
            gpumlp.register(thing)
        assert thing.name not in {**ACTIVATIONS, **LOSSES, **OPTIMIZERS}


def test_without_a_compiler_there_is_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMLP_DEVICE", "numpy")
    with pytest.warns(RuntimeWarning, match="'softsign' was neither compiled nor compared"):
        gpumlp.register(Softsign)
    assert "softsign" in ACTIVATIONS


def test_messages_of_nvidias_compiler() -> None:
    source, text = "int a;\nx = z /\n  (C(1) + fabs(y));\n", "z /\n  (C(1) + fabs(y))"
    said = '/tmp/k.cubin.cu(3): error: identifier "y" is undefined\n\n1 error detected\n'
    assert explain(source, said, {"forward": text}) == (
        'line 2 of `forward`: identifier "y" is undefined\n    2 | (C(1) + fabs(y))'
    )
    assert "k.cu(9): error: what" in explain(source, "k.cu(9): error: what", {"forward": text})


REFUSED = [
    (lambda: activation(name="relu"), ValueError, "'relu' is one of the package's; give yours another name"),
    (lambda: replace(PSEUDO_HUBER, name="huber"), ValueError, "loss 'huber' is one of the package's"),
    (lambda: rule(name="adam"), ValueError, "optimizer 'adam' is one of the package's"),
    (lambda: activation(name="my own"), ValueError, "name='my own'; expected a letter"),
    (lambda: activation(f="z"), TypeError, "f must be a function"),
    (lambda: activation(df=lambda a: a[:1]), ValueError, r"df of 228 numbers gave float64 of shape \(1,\)"),
    (lambda: activation(f=lambda z: z.sort()), ValueError, "f changes the array that it is given"),
    (lambda: activation(f=lambda z: None), ValueError, "f of 228 numbers gave object"),
    (lambda: activation(f=lambda z: z.nonsense), ValueError, "f of 228 numbers raised AttributeError"),
    (lambda: replace(PSEUDO_HUBER, link="log"), ValueError, "link='log'; expected one of identity"),
    (lambda: replace(PSEUDO_HUBER, classes=True), ValueError, "classes=True is for the package's"),
    (lambda: replace(PSEUDO_HUBER, delta=-1.0), ValueError, "delta=-1.0; expected"),
    (lambda: replace(PSEUDO_HUBER, reference=lambda z, y, d: (z[:, 0], z)), ValueError, r"shape \(40,\)"),
    (lambda: rule(__annotations__={"gamma": "float"}), TypeError, "gamma"),
    (lambda: type("Late", (Signum,), {"__annotations__": {"x": "float"}, "x": 1.0}), TypeError, "@dataclass"),
    (lambda: rule(stepped=lambda self, t, lr: {"lr": lr * np.size(t)}), ValueError, "in an array of steps"),
    (lambda: gpumlp.kernels.optimizers.lion.Lion, TypeError, "derive it from gpumlp.Optimizer"),
    (lambda: 3, TypeError, "3 cannot be registered; expected a gpumlp.Activation"),
    (lambda: "mish", TypeError, "'mish' cannot be registered"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_registered(make: Any, error: type[Exception], message: str) -> None:
    before = {**ACTIVATIONS}, {**LOSSES}, {**OPTIMIZERS}
    with pytest.raises(error, match=message):
        gpumlp.register(make())
    assert before == (ACTIVATIONS, LOSSES, OPTIMIZERS)


def test_another_one_of_the_same_name() -> None:
    """Refused, but not where somebody says so: as in a notebook whose cell is run again."""
    made = [activation(gain=gain) for gain in (1.0, 1.0, 2.0)]
    gpumlp.register(made[0])
    gpumlp.register(made[1])
    assert ACTIVATIONS["own"] is made[0]
    with pytest.raises(ValueError, match=r"'own' is registered already, as another one.*replace=True"):
        gpumlp.register(made[2])
    assert gpumlp.register(made[2], replace=True) is ACTIVATIONS["own"]
    one, same, other = rule(), rule(), rule(weight=2)
    gpumlp.register(one)
    gpumlp.register(same)
    with pytest.raises(ValueError, match="'own' is registered already"):
        gpumlp.register(other)


def test_classes_instead_of_objects_are_told() -> None:
    with pytest.raises(TypeError, match=r"activation=Softsign is a class; .* object of it: Softsign\(\)"):
        gpumlp.MLP([2, 3, 1], Softsign, device="numpy")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is a class; expected an object"):
        gpumlp.losses.get_loss(gpumlp.Huber)  # type: ignore[arg-type]


def test_pickles_bring_along_what_can_be_imported() -> None:
    model = gpumlp.MLP([2, 3, 1], Softsign(), device="cpu", dtype="float64")
    trainer = gpumlp.Trainer(model, loss=PSEUDO_HUBER, optimizer=Signum())
    X = np.ones((3, 2))
    answers = model.predict(X)
    text, copied = pickle.dumps(trainer), copy.deepcopy(model)
    ACTIVATIONS.pop("softsign"), LOSSES.pop("pseudo_huber")
    loaded = pickle.loads(text)
    assert np.array_equal(loaded.model.predict(X), answers)
    assert np.isfinite(loaded.evaluate(X, X[:, 0])["loss"])
    assert np.array_equal(copied.predict(X), answers)


def test_a_pickle_of_what_has_no_name_needs_it_registered() -> None:
    nameless = activation(f=lambda z: z / (1 + np.abs(z)))
    text = pickle.dumps(gpumlp.MLP([2, 3, 1], nameless, device="cpu"))
    ACTIVATIONS.pop("own")
    with pytest.raises(ValueError, match=r"unknown activation 'own'.*register it first"):
        pickle.loads(text).predict(np.ones((1, 2)))


def test_export_to_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from gpumlp.export import to_onnx

    with pytest.raises(ValueError, match="activation 'softsign' has no ONNX form"):
        to_onnx(gpumlp.MLP([2, 3, 1], Softsign(), device="cpu"), tmp_path / "model.onnx")
    form = activation(onnx=lambda graph, z: graph.node("Softsign", z))
    to_onnx(gpumlp.MLP([2, 3, 1], form, device="cpu"), tmp_path / "model.onnx")


@pytest.mark.filterwarnings("ignore:.*aximum:UserWarning")
def test_estimators(device: str) -> None:
    pytest.importorskip("sklearn")
    from sklearn.base import clone

    X = np.random.default_rng(0).normal(size=(40, 3))
    options: dict[str, Any] = {"random_state": 0, "max_iter": 3, "device": device}
    named = gpumlp.MLPRegressor(PSEUDO_HUBER, (4,), Softsign(), solver=Signum(lr=0.05), **options)
    est = clone(named).fit(X, X[:, 0])
    again = gpumlp.MLPRegressor("pseudo_huber", (4,), "softsign", **options)
    gpumlp.register(Signum)
    again.set_params(solver="signum", learning_rate_init=0.05).fit(X, X[:, 0])
    assert np.array_equal(est.predict(X), again.predict(X))
    text = pickle.dumps(est)
    ACTIVATIONS.pop("softsign")
    assert np.array_equal(pickle.loads(text).predict(X), est.predict(X))
    for solver, name in ((Signum(l2=0.1), "l2"), (gpumlp.AdamW(weight_decay=0.3), "weight_decay")):
        with pytest.raises(ValueError, match=rf"{name}=.*give alpha to the estimator"):
            clone(named).set_params(solver=solver).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="is for classes"):
        clone(named).set_params(loss=gpumlp.BinaryCrossEntropy()).fit(X, X[:, 0])


def test_many_networks(device: str) -> None:
    """Together as alone; on CUDA they share a plan."""
    X = np.random.default_rng(0).normal(size=(40, 3))

    def trainer(seed: int) -> gpumlp.Trainer:
        model = gpumlp.MLP([3, 4, 1], Softsign(), seed=seed, device=device, dtype="float64")
        loss = replace(PSEUDO_HUBER, delta=0.5)
        return gpumlp.Trainer(model, loss=loss, optimizer=Signum(lr=0.01 * (1 + seed)), batch_size=16)

    together, alone = [trainer(k) for k in range(3)], [trainer(k) for k in range(3)]
    histories = gpumlp.fit_many(together, X, X[:, 0], epochs=3, progress=False)
    if device.startswith("cuda"):
        assert "in 1 plan" in repr(histories)
    for one, other in zip(together, alone, strict=True):
        other.fit(X, X[:, 0], epochs=3, progress=False)
        assert np.array_equal(*(t.model.backend.to_numpy(t.model.flat) for t in (one, other)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--activation", "nosuch:Thing"],
            "'nosuch:Thing': the module 'nosuch' cannot be imported (ModuleNotFound",
        ),
        (
            ["--loss", "broken:Thing"],
            "the module 'broken' cannot be imported (ZeroDivisionError: division by",
        ),
        (["--optimizer", "json:Thing"], "'json:Thing': 'json' has no 'Thing'"),
        (["--activation", "gpumlp:Huber"], "expected the activation that is to be used"),
        (["--loss", "json:dumps"], "expected the loss that is to be used"),
        (["--register", "json:dumps"], "cannot be registered; expected a gpumlp.Activation"),
    ],
)
def test_words_of_the_command_line_that_stand_for_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    words: list[str],
    message: str,
) -> None:
    from gpumlp.cli import main

    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    assert f"argument {words[0]}: " in (said := capsys.readouterr().err) and message in said


def test_functions_are_compared_by_what_they_do() -> None:
    """Made twice by the same code, around the same values or others; arrays are not compared."""

    def made(slope: Any) -> gpumlp.Activation:
        return activation(f=lambda z: slope * z, forward="z", df=lambda a: a * 0 + slope, derivative="C(1)")

    gpumlp.register(made(1.0))
    gpumlp.register(made(1.0))
    for other in (2.0, np.ones(2)):
        with pytest.raises(ValueError, match="'own' is registered already"):
            gpumlp.register(made(other))
