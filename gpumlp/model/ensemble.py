"""`Ensemble`: the mean of several networks; and the choice of its members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.backends.arrays import is_cuda
from gpumlp.errors import suggest
from gpumlp.losses import LOSSES
from gpumlp.model.mlp import MLP, check_answers
from gpumlp.rows import check_rows

__all__ = ["Ensemble", "greedy_choice", "greedy_ensemble"]

#: a loss that takes targets of a network with this output
_LOSS_OF = {
    "softmax": "softmax_cross_entropy",
    "sigmoid": "binary_cross_entropy",
    "exp": "poisson",
    "identity": "squared_error",
}


class Ensemble:
    """Networks that answer together: the mean of their probabilities or values.

    Parameters
    ----------
    models : sequence of MLP
        With the same inputs, outputs and `output`; hidden layers may differ.  One that is given several times
        counts as often.

    Attributes
    ----------
    models : list of MLP
    extra : dict
        Anything that JSON can hold, kept in the file.

    Raises
    ------
    ValueError, TypeError
        Models that have no common mean.

    Examples
    --------
    >>> import gpumlp
    >>> models = [gpumlp.MLP([4, 8, 1], seed=seed, device="cpu") for seed in range(3)]
    >>> gpumlp.Ensemble(models).predict([[5.1, 3.5, 1.4, 0.2]]).shape
    (1,)
    """

    def __init__(self, models: Sequence[MLP]) -> None:
        self.models = _check_models(models)
        self.extra: dict[str, Any] = {}

    @property
    def output(self) -> str:
        """That of the members: what is averaged; see `MLP`."""
        return self.models[0].output

    @property
    def n_inputs(self) -> int:
        """That of the members."""
        return self.models[0].n_inputs

    @property
    def n_outputs(self) -> int:
        """That of the members."""
        return self.models[0].n_outputs

    @property
    def dtype(self) -> np.dtype:
        """The widest of the members' types, which the answers have."""
        return np.result_type(*(model.dtype for model in self.models))

    @property
    def n_params(self) -> int:
        """Of all members, each counted once."""
        return sum(model.n_params for model, _ in self.members())

    def __len__(self) -> int:
        return len(self.models)

    def members(self) -> list[tuple[MLP, int]]:
        """Different models, in the order of their first place, and how often each is given."""
        found: dict[int, list[Any]] = {}
        for model in self.models:
            found.setdefault(id(model), [model, 0])[1] += 1
        return [(model, count) for model, count in found.values()]

    def to(self, device: Any) -> Ensemble:
        """Move all members to another device, in place; returns the ensemble."""
        for model, _ in self.members():
            model.to(device)
        return self

    # ---- use -----------------------------------------------
    def answers(self, X: Any) -> Any:
        """Mean of the members' probabilities or values (n_rows, n_outputs)."""
        return self._mean(lambda model: model.outputs(X, self.output))

    def predict(self, X: Any) -> Any:
        """Classes or values, in the form of `MLP.predict`, from the mean of the members' probabilities or
        values."""
        mean = self.answers(X)
        if self.output in ("softmax", "sigmoid"):
            check_answers(mean)
        if self.output == "softmax":
            return mean.argmax(axis=1)
        if self.output == "sigmoid":
            mean = (mean > 0.5).astype("int64")
        return mean[:, 0] if mean.shape[1] == 1 else mean

    def predict_proba(self, X: Any) -> Any:
        """Mean of the members' class probabilities, in the form of `MLP.predict_proba`."""
        return self._mean(lambda model: model.predict_proba(X))

    def spread(self, X: Any) -> Any:
        """How far the members are apart: the standard deviation, over them, of their probabilities (in the
        form of `predict_proba`) or values (of `predict`)."""
        answers = MLP.predict_proba if self.output in ("softmax", "sigmoid") else MLP.predict
        mean = self._mean(lambda model: answers(model, X))
        return self._mean(lambda model: (answers(model, X) - mean) ** 2) ** 0.5

    def _mean(self, answer: Callable[[MLP], Any]) -> Any:
        """Of the members' answers, summed in double precision, in the widest of their types."""
        total = 0.0
        for model, count in self.members():
            with model.backend.active():
                total = total + answer(model).astype("float64") * count
        return (total / len(self.models)).astype(self.dtype)  # type: ignore[attr-defined]

    # ---- files and printing -----------------------------------------------
    def save(self, path: Any) -> None:
        """Write all members to one .npz file, atomically; `gpumlp.load` reads it.  Loading never runs
        code."""
        from gpumlp.model.saved import save_ensemble

        save_ensemble(self, path)

    def __repr__(self) -> str:
        shapes = sorted({"-".join(map(str, model.layer_sizes)) for model in self.models})
        different = len(self.members())
        kinds = "" if different == len(self) else f" ({different} different)"
        return f"Ensemble({len(self)} networks{kinds}, {checks.some(shapes, 3)}, output {self.output!r})"


def greedy_ensemble(
    models: Sequence[MLP],
    X_val: Any,
    y_val: Any,
    size: int,
    *,
    metric: str | None = None,
    sample_weight: Any = None,
) -> Ensemble:
    """The ensemble of `size` networks that forward selection with replacement finds.

    Beginning with none, `size` times that model is added (again, maybe) with which the mean of probabilities
    or values is best on the validation rows:
    m_k = argmin over m of L(y, (P(m_1) + ... + P(m_{k-1}) + P(m)) / k).  Of equally good ones the first is
    taken.  (Caruana, Niculescu-Mizil, Crew, Ksikes, *Ensemble selection from libraries of models*, ICML
    2004.)

    Parameters
    ----------
    models : sequence of MLP
        As for `Ensemble`.  Those with outputs that are not finite (a diverged training) are passed over.
    X_val, y_val : arrays
        Rows that the models were not trained on; as for `Trainer.fit`.
    size : int
        Number of members, repeated ones counted.
    metric : str, optional
        L: "log_loss" or "accuracy" (the share of wrong answers) for classifiers, "rmse" for values.  By
        default "log_loss" and "rmse".
    sample_weight : array (n_rows,), optional
        Weights of the validation rows.

    Returns
    -------
    Ensemble

    Raises
    ------
    ValueError, TypeError
        What does not fit together; or no model has finite outputs.
    """
    models, size = _check_models(models), checks.whole("size", size)
    first = models[0]
    output = first.output
    known = ("log_loss", "accuracy") if output in ("softmax", "sigmoid") else ("rmse",)
    if metric is not None and metric not in known:
        raise ValueError(f"{suggest('metric', metric, known)} The models' output is {output!r}.")
    rows = check_rows(first, LOSSES[_LOSS_OF[output]], X_val, y_val, sample_weight, suffix="_val")
    y, w = (part.get() if is_cuda(part) else part for part in (rows.y, rows.w))
    answers = [model.backend.to_numpy(model.outputs(X_val, output)).astype(np.float64) for model in models]
    return Ensemble([models[number] for number in greedy_choice(answers, y, size, metric or known[0], w)])


def greedy_choice(
    answers: Sequence[np.ndarray], y: np.ndarray, size: int, metric: str, w: np.ndarray | None = None
) -> list[int]:
    """The numbers that `greedy_ensemble` chooses, of candidates with these float64 `answers`
    (n_rows, n_outputs) to rows with the targets `y` and weights `w`."""
    error = _ERRORS[metric]
    usable = [number for number, p in enumerate(answers) if np.isfinite(p).all()]
    if not usable:
        raise ValueError("none of the models has finite outputs on the validation rows")
    if metric == "log_loss" and y.ndim == 1:  # the probabilities of what is right are enough
        rows = np.arange(len(y))
        answers, y = [p[rows, y][:, None] for p in answers], np.zeros(len(y), int)
    total, chosen = np.zeros_like(answers[0]), list[int]()
    for count in range(1, size + 1):
        best = min(usable, key=lambda number: error((total + answers[number]) / count, y, w))
        total += answers[best]
        chosen.append(best)
    return chosen


def _log_loss(p: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> float:
    """Mean of -log of the probability of what is right; of several sigmoids, the sum over them."""
    tiny = np.finfo(np.float64).eps
    if y.ndim == 1:
        right = p[np.arange(len(y)), y]
        return _mean(-np.log(np.clip(right, tiny, 1)), w)
    p = np.clip(p, tiny, 1 - tiny)
    return _mean(-(y * np.log(p) + (1 - y) * np.log1p(-p)).sum(axis=1), w)


def _share_wrong(p: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> float:
    return _mean(p.argmax(axis=1) != y if y.ndim == 1 else ((p > 0.5) != (y > 0.5)).mean(axis=1), w)


def _rmse(p: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> float:
    return float(np.sqrt(_mean(((p - y) ** 2).mean(axis=1), w)))


def _mean(values: np.ndarray, w: np.ndarray | None) -> float:
    """Of the rows' values, with weights."""
    return float(values.mean() if w is None else np.average(values, weights=w))


_ERRORS = {"log_loss": _log_loss, "accuracy": _share_wrong, "rmse": _rmse}


def _check_models(models: Any) -> list[MLP]:
    if isinstance(models, MLP):
        raise TypeError("models is one MLP; expected a list of them")
    checked = list(models)
    if not checked:
        raise ValueError("models is empty; expected at least one gpumlp.MLP")
    for number, model in enumerate(checked):
        if not isinstance(model, MLP):
            hint = "; give its model" if isinstance(getattr(model, "model", None), MLP) else ""
            raise TypeError(f"models[{number}]={model!r}; expected a gpumlp.MLP{hint}")
        for what, get in _COMMON.items():
            if get(model) != get(checked[0]):
                raise ValueError(
                    f"models[{number}] has {what} {get(model)!r}, models[0] {get(checked[0])!r}; "
                    "members must have the same"
                )
    return checked


_COMMON: dict[str, Callable[[MLP], Any]] = {
    "inputs": lambda model: model.layer_sizes[0],
    "outputs": lambda model: model.layer_sizes[-1],
    "output": lambda model: model.output,
}
