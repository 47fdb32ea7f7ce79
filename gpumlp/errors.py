"""Errors and warnings that a caller may want to catch by name, and the wording of name errors."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "CompileError",
    "DeviceError",
    "DivergenceError",
    "ModelFileError",
    "UsageError",
    "diverged",
    "nearest",
    "parameters_lost",
    "register_first",
    "suggest",
]

_MOST_SHOWN = 50  # known names in a message; a table may have a hundred thousand
_MOST_COMPARED = 2000  # names that are compared to find the one that was meant

#: kind -> what other libraries call a thing -> what to write here
ELSEWHERE = {
    "loss": {
        **dict.fromkeys(("mse", "mean_squared_error", "l2"), "'squared_error'"),
        **dict.fromkeys(("mae", "mean_absolute_error", "l1"), "'absolute_error'"),
        **dict.fromkeys(
            ("cross_entropy", "crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"),
            "'softmax_cross_entropy'",
        ),
        **dict.fromkeys(("nll", "nll_loss"), "'softmax_cross_entropy'"),
        **dict.fromkeys(
            ("bce", "bce_with_logits", "binary_crossentropy", "logistic"), "'binary_cross_entropy'"
        ),
        "log_loss": "'softmax_cross_entropy' or, for two classes with one output, 'binary_cross_entropy'",
        "smooth_l1": "'huber'",
        **dict.fromkeys(("pinball", "pinball_loss", "quantile_loss"), "'quantile'"),
    },
    "activation": {
        "logistic": "'sigmoid'",
        **dict.fromkeys(("linear", "none"), "'identity'"),
        "swish": "'silu'",
        "leakyrelu": "'leaky_relu'",
    },
    "optimizer": {
        "momentum": "gpumlp.SGD(momentum=0.9)",
        "nesterov": "gpumlp.SGD(momentum=0.9, nesterov=True)",
    },
}


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says which part is missing."""


class CompileError(DeviceError):
    """A compiler refused a kernel's text.

    Attributes
    ----------
    source : str
        All that it was given.
    said : str
        Its messages.
    """

    def __init__(self, message: str, source: str = "", said: str = "") -> None:
        super().__init__(message)
        self.source, self.said = source, said


class DivergenceError(FloatingPointError):
    """Training produced a loss that is NaN or infinite; the message names step and epoch and what to try.

    Attributes
    ----------
    where : str
        What happened to the loss or the parameters, and when.
    """

    where = ""


class ModelFileError(ValueError):
    """A file that is not a usable model; the message says what is wrong with it."""


class UsageError(ValueError):
    """Command line options that do not fit together or to the data."""


def diverged(value: float, epoch: int, steps: tuple[int, int], lr: float) -> DivergenceError:
    """The exception for a loss of `value` in `epoch` (from 0), first seen in one of the steps first to
    last."""
    first, last = steps
    step = f"step {first + 1}" if first == last else f"one of the steps {first + 1} to {last + 1}"
    return _divergence(f"the loss became {value} in epoch {epoch + 1}, {step} (lr {lr:g})", lr)


def parameters_lost(count: int, epoch: int, lr: float) -> DivergenceError:
    """The exception for `count` parameters that are not finite after `epoch` (from 0), whose loss is: it is
    computed before the steps."""
    what = "1 parameter is" if count == 1 else f"{count} parameters are"
    return _divergence(f"{what} NaN or infinite after the last step of epoch {epoch + 1} (lr {lr:g})", lr)


def _divergence(where: str, lr: float) -> DivergenceError:
    error = DivergenceError(
        f"training diverged: {where}. "
        "The model's parameters are no longer usable, unless early stopping put those of the best epoch "
        f"back. Try a smaller learning rate (lr={lr / 10:g}), clip_norm=1.0, or standardise X (and, for "
        "regression, y)"
    )
    error.where = where
    return error


def register_first(where: str, name: object) -> str:
    """What to do about an unknown name that may be the user's own; `where` is the registry."""
    return (
        " If it is one of your own, register it first: gpumlp.register(...) puts it into "
        f"{where}[{name!r}]; on the command line, --register MODULE:NAME."
    )


def nearest(given: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, whatever the case of its letters; None if none is near."""
    import difflib  # here: errors are rare, and every program pays for what is imported above

    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(given).lower(), names, n=1, cutoff=0.5)
    return names[near[0]] if near else None


def suggest(kind: str, given: object, known: Iterable[str]) -> str:
    """Text for an unknown name: what was given, the name that was probably meant, all known names."""
    names, key = sorted(known), str(given).lower().replace("-", "_").replace(" ", "_")
    near = nearest(given, names) if len(names) <= _MOST_COMPARED else None
    meant = ELSEWHERE.get(kind, {}).get(key) or (repr(near) if near else None)
    hint = f" Did you mean {meant}?" if meant else ""
    more = f", ... ({len(names)})" if len(names) > _MOST_SHOWN else ""
    return f"unknown {kind} {given!r}.{hint} Known: {', '.join(names[:_MOST_SHOWN])}{more}."
