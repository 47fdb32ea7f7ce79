"""The C++ text of an activation, a loss or a rule: compiled by the executor at hand, and compared with its
NumPy reference."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpumlp.backends import Backend, get_backend
from gpumlp.errors import CompileError, DeviceError
from gpumlp.kernels.activations import Activation, kernels_of
from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.losses import Loss, loss_kernels_of
from gpumlp.kernels.optimizers.rule import Rule
from gpumlp.verify.differences import example_outputs, example_points, example_targets

__all__ = ["check_activation_text", "check_loss_text", "check_rule_text"]

#: largest error, relative to numbers above 1: texts may order their sums otherwise than references
_TOLERANCES = {"float64": 1e-9, "float32": 2e-4}
_SHOWN = 3  # errors of the compiler
#: "file:line:column: error: what" and "file(line): error: what"
_ERROR = re.compile(
    r"^[^\n]*?[:(](\d+)(?::\d+)?\)?\s*:\s*(?:fatal |catastrophic )?error\s*[^:\n]*:\s*(.*)$", re.M
)
#: what the text is called in messages -> the user's text
Texts = Mapping[str, str]


def check_activation_text(activation: Activation) -> bool:
    """Whether there was a compiler for the text; ValueError if it does not compile or gives other numbers."""
    what = f"activation {activation.name!r}"
    backend = _executor(what)
    if backend is None:
        return False
    texts = {"forward": activation.forward, "derivative": activation.derivative}
    forward, backward, *more = kernels_of(activation)
    with _explained(what, texts, backend):
        for dtype in _TOLERANCES:
            z = example_points().astype(dtype)[None]
            a, slope = np.empty_like(z), np.ones_like(z)
            (got,) = _launched(backend, forward, {"z": z, "a": a}, {}, {}, ("a",))
            with np.errstate(all="ignore"):
                wanted = np.asarray(activation.f(z), dtype)
                _compare(what, "forward", "f", got, wanted, z, "z", dtype)
                x = z if activation.needs_z else wanted
                inputs = {"z" if activation.needs_z else "a": x, "d": slope}
                (got,) = _launched(backend, backward, inputs, {}, {}, ("d",))
                wanted = np.broadcast_to(np.asarray(activation.df(x), dtype), z.shape)
                _compare(what, "derivative", "df", got, wanted, z, "z", dtype)
        _compile(backend, more)
    return True


def check_loss_text(loss: Loss) -> bool:
    """As `check_activation_text`."""
    what = f"loss {loss.name!r}"
    backend = _executor(what)
    if backend is None:
        return False
    training, evaluation = loss_kernels_of(loss)
    with _explained(what, {"value": loss.value, "gradient": loss.gradient}, backend):
        for dtype in _TOLERANCES:
            z = example_outputs(loss).astype(dtype)
            y = example_targets(loss, z)
            y = y if loss.classes else y.astype(dtype)
            rows = len(z)
            raws = {"index": np.arange(rows, dtype=np.int32), "y": y, "row_loss": np.zeros(rows, dtype)}
            scalars: dict[str, Any] = {"stride": rows} | ({} if loss.classes else {"per_output": 1.0})
            if loss.levels:
                raws["delta"] = np.array(loss.delta, dtype)
            elif loss.delta is not None:
                scalars["delta"] = loss.delta
            each = [({"z": z, "d": np.zeros_like(z), **raws}, scalars, {"inv_weight": 1.0}, training)]
            centre = {"centre": 0} if loss.levels else {}
            metric = np.zeros(rows, dtype)
            each += [({"z": z, **raws, "row_metric": metric}, {**scalars, **centre}, {}, evaluation)]
            for arrays, values, stepped, kernel in each:
                own = {n: v.copy() for n, v in arrays.items()}
                with np.errstate(all="ignore"):
                    kernel.reference(**own, **values, **stepped, k=0)
                names = [n for n in ("row_loss", "d") if n in arrays]
                for name, got in zip(
                    names, _launched(backend, kernel, arrays, values, stepped, names), strict=True
                ):
                    text = "value" if name == "row_loss" else "gradient"
                    at, label = (np.arange(rows), "row") if name == "row_loss" else (z, "z")
                    _compare(what, text, "reference", got, own[name], at, label, dtype)
    return True


def check_rule_text(rule: Rule) -> bool:
    """As `check_activation_text`: three steps on random gradients, with and without penalties."""
    what = f"rule {rule.name!r}"
    backend = _executor(what)
    if backend is None:
        return False
    kernel = rule.kernel()
    with _explained(what, {"text": rule.text()}, backend):
        for dtype in _TOLERANCES:
            rng = np.random.default_rng(3)
            own = {"g": np.zeros(96, dtype), "p": rng.normal(size=96).astype(dtype)}
            start = rule.state_start()
            own |= {name: np.full(96, start.get(name, 0.0), dtype) for name in rule.arrays()}
            held = {name: backend.asarray(array.copy()) for name, array in own.items()}
            for t in (1, 2, 3):
                g = rng.normal(size=96).astype(dtype)
                g[:4] = 0
                own["g"][:] = g
                held["g"] = backend.asarray(g)
                values = rule.step_values(t, float(rule.lr) or 0.01)
                stepped = {name: float(values[name]) for name in kernel.stepped}
                scalars = rule.scalars(kernel)
                with np.errstate(all="ignore"):
                    kernel.reference(
                        **own, **scalars, **stepped, k=0, **({"decay": 1.0} if kernel.masked else {})
                    )
                with backend.active():
                    backend.elementwise(kernel, held, scalars, stepped)
                for name in ("p", *rule.arrays()):
                    where = f"{name}, which the text leaves" if name != "p" else "p"
                    got = backend.to_numpy(held[name])
                    _compare(what, f"text (step {t}, {where})", "rule", got, own[name], g, "g", dtype)
    return True


def _executor(what: str) -> Backend | None:
    """Who can compile text here: a GPU, else the native executor; None, with a word, if nobody can."""
    why: object = "no GPU and no C++ compiler can be used here"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backend = get_backend("auto")
            if backend.name != "numpy":
                return backend if backend.name == "cuda" else get_backend("native")
    except DeviceError as error:
        why = error
    warnings.warn(
        f"the C++ text of {what} was neither compiled nor compared with its NumPy reference: {why}",
        RuntimeWarning,
        stacklevel=5,
    )
    return None


def _launched(
    backend: Backend,
    kernel: Kernel,
    arrays: Mapping[str, np.ndarray],
    scalars: Mapping[str, Any],
    stepped: Mapping[str, float],
    names: Sequence[str],
) -> list[np.ndarray]:
    """What a launch leaves in the arrays `names`."""
    with backend.active():
        held = {name: backend.asarray(array.copy()) for name, array in arrays.items()}
        rows, cols = arrays["z" if "z" in arrays else "d"].shape
        backend.launch(kernel, held, dict(scalars), dict(stepped), rows=rows, cols=cols)
        return [backend.to_numpy(held[name]) for name in names]


def _compile(backend: Backend, kernels: Sequence[Kernel]) -> None:
    """See whether the native compiler takes them; on a GPU that shows when they are used."""
    if backend.name == "native":
        from gpumlp.backends.native.call import functions_of

        functions_of([(kernel, np.dtype("float32"), 0) for kernel in kernels])


def _compare(
    what: str,
    text: str,
    reference: str,
    got: np.ndarray,
    wanted: np.ndarray,
    at: np.ndarray,
    label: str,
    dtype: str,
) -> None:
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(got - wanted) / np.maximum(1, np.abs(wanted))
        error = np.where((got == wanted) | (np.isnan(got) & np.isnan(wanted)), 0.0, error)
        error = np.where(np.isnan(error), np.inf, error)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    if error[worst] > _TOLERANCES[dtype]:
        raise ValueError(
            f"{what}: the C++ text `{text}` and the NumPy reference `{reference}` differ. Worst at "
            f"{label} = {float(np.broadcast_to(at, got.shape)[worst]):.9g} in {dtype}: the text gives "
            f"{got[worst]:.9g}, the reference {wanted[worst]:.9g}"
        )


@contextmanager
def _explained(what: str, texts: Texts, backend: Backend) -> Iterator[None]:
    """A compiler's error as a ValueError that shows the user's own lines."""
    try:
        yield
    except Exception as error:
        said = getattr(error, "said", None) if isinstance(error, CompileError) else None
        if type(error).__name__ == "CompileException":  # CuPy's
            said = str(error.get_message())  # type: ignore[attr-defined]
        if said is None:
            raise
        source = str(getattr(error, "source", ""))
        raise ValueError(f"{what}: its C++ text does not compile.\n{explain(source, said, texts)}") from error


def explain(source: str, said: str, texts: Texts) -> str:
    """A compiler's messages about `source`, in terms of the user's texts that are in it."""
    found = []
    for match in _ERROR.finditer(said):
        line, message = int(match[1]), match[2].strip()
        for label, text in texts.items():
            place = _line_in(source, text, line)
            if place is not None:
                shown = text.splitlines()[place - 1].strip()
                entry = f"line {place} of `{label}`: {message}\n    {place} | {shown}"
                found += [entry] if entry not in found else []
    return "\n".join(found[:_SHOWN]) if found else said.strip()[:2000]


def _line_in(source: str, text: str, line: int) -> int | None:
    """Which line of `text` is line `line` of `source`, from 1; None if it is none of them."""
    if not text.strip():
        return None
    start = source.find(text)
    while start >= 0:
        first = source.count("\n", 0, start) + 1
        if first <= line <= first + text.rstrip("\n").count("\n"):
            return line - first + 1
        start = source.find(text, start + 1)
    return None
