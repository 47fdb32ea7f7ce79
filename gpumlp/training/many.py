"""`fit_many`: what `Trainer.fit` does, for many trainers on the rows of the same arrays."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.backends.arrays import is_cuda
from gpumlp.distributed import Communicator, get_communicator
from gpumlp.errors import DivergenceError
from gpumlp.rows import Rows, check_features, check_rows, check_targets, check_weights
from gpumlp.training.apart import train_apart
from gpumlp.training.fitting import check_fit, check_monitor
from gpumlp.training.halving import Race, SuccessiveHalving, get_halving
from gpumlp.training.history import EarlyStopping, Histories, History, get_early_stopping
from gpumlp.training.members import Member, train
from gpumlp.training.progress import Progress
from gpumlp.training.trainer import Trainer

__all__ = ["fit_many"]


def fit_many(
    trainers: Sequence[Trainer],
    X: Any,
    y: Any,
    *,
    epochs: int | Sequence[int],
    rows: Sequence[Any] | None = None,
    validation: Any = None,
    sample_weight: Any = None,
    early_stopping: EarlyStopping | bool | Sequence[EarlyStopping | bool | None] | None = None,
    halving: SuccessiveHalving | float | None = None,
    groups: Sequence[Hashable] | None = None,
    progress: bool | None = None,
    communicator: str | Communicator | None = None,
) -> list[History]:
    """Train many networks on the rows of one data set: a grid, folds, seeds, an ensemble.

    Each trainer ends as its own ``fit(X[rows[k]], y[rows[k]], ...)`` would have left it: parameters,
    optimiser state, step and epoch numbers, history (but for "seconds"), early stopping; on the CPU to the
    bit.  They may differ in everything: shapes, losses, rules, batch sizes, settings.

    On the native executor as many are trained side by side as there are processors, one per thread, from the
    largest to the smallest; on the NumPy executor one after another.  On CUDA those share a plan, and go
    through their epochs together, that have the same loss, rule, activations, depth, dtype, precision and
    number of steps per epoch: see docs/many.md.

    Parameters
    ----------
    trainers : sequence of Trainer
        Each with a model of its own.
    X, y : arrays
        As for `Trainer.fit`.  All rows are checked once, and not copied for each trainer.
    epochs : int, or one for each trainer
    rows : sequence, optional
        For each trainer the numbers of the rows that it is given (a fold), or None for all.
    validation : float or tuple, optional
        As for `Trainer.fit`: a fraction of the trainer's rows, ``(X_val, y_val)`` or
        ``(X_val, y_val, weights)``, for all; or a list with one for each trainer.
    sample_weight : array (n_rows,), or a list with one (or None) for each trainer, optional
        Weights of the rows of X.
    early_stopping : EarlyStopping or True, or a list with one (or None) for each trainer, optional
    halving : SuccessiveHalving or number, optional
        At its rungs the worst candidates end, as if a callback of theirs had returned True; a number is the
        factor of `SuccessiveHalving`.
    groups : sequence, optional
        For each trainer the candidate that it belongs to (a number, a name): one candidate's folds, which
        are judged by their mean and leave together.  By default each trainer is a candidate.
    progress : bool, optional
        Show a progress bar; by default only on a terminal or in a notebook.
    communicator : "auto" or Communicator, optional
        Spread the networks over the ranks of a job, each of which gives equal trainers and all rows: rank r
        trains number r, r + size, ..., and calls their callbacks.  Afterwards all ranks have all of them.

    Returns
    -------
    list of History
        Those of the trainers; its `repr` says how many networks and plans there were.  One that diverged has
        the reason in its `error`; the others go on.  With `halving`, `rung` is the number of rungs that the
        candidate has passed.

    Raises
    ------
    DivergenceError
        All of them diverged.
    ValueError, TypeError
        What does not fit; the message names the trainer, and nothing has been changed then.

    Notes
    -----
    Callbacks are called in the calling thread, one at a time.  An exception in one of them ends all trainings
    and comes through.  After that, or Ctrl-C, each trainer is at the end of an epoch, with the bits that its
    own fit would have then, and can go on.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    >>> def trainer(lr):
    ...     model = gpumlp.MLP([4, 8, 3], device="cpu")
    ...     return gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer=gpumlp.Adam(lr=lr))
    >>> trainers = [trainer(lr) for lr in (0.1, 0.01, 0.001)]
    >>> histories = gpumlp.fit_many(trainers, X, y, epochs=5, validation=0.25)
    >>> [len(history) for history in histories]
    [5, 5, 5]
    """
    if progress is not None:
        progress = checks.flag("progress", progress)
    trainers = _check_trainers(trainers)
    n = len(trainers)
    halve, candidates = get_halving(halving), _check_groups(groups, n)
    if halve is None and groups is not None:
        raise ValueError("groups say which trainers leave together; they need halving")
    per_trainer = {
        "epochs": _per_trainer("epochs", epochs, n, _is_list),
        "rows": _per_trainer("rows", rows, n, lambda value: value is not None),
        "validation": _per_trainer("validation", validation, n, lambda value: isinstance(value, list)),
        "sample_weight": _per_trainer("sample_weight", sample_weight, n, _are_weights),
        "early_stopping": _per_trainer("early_stopping", early_stopping, n, _is_list),
    }
    job = None if communicator is None else get_communicator(communicator)
    if job is not None and job.size > 1:
        if halve is not None:
            raise ValueError(
                "halving compares all networks while they train, so it needs them in one process"
            )

        def fit_own(numbers: list[int]) -> list[History]:
            own: dict[str, Any] = {k: [values[j] for j in numbers] for k, values in per_trainer.items()}
            return fit_many([trainers[j] for j in numbers], X, y, **own, progress=progress and job.rank == 0)

        histories = train_apart(job, trainers, fit_own)
        if all(history.error is not None for history in histories):
            raise _all_diverged([history.error for history in histories])
        return histories
    given = _Given(X, y)
    each = zip(trainers, *per_trainer.values(), strict=True)
    members = []
    for number, (trainer, count, index, held, weights, wanted) in enumerate(each):
        with _named(number):
            n_epochs, stop = checks.whole("epochs", count), get_early_stopping(wanted)
            parts = check_fit(
                trainer, given.rows(trainer, index, weights), given.validation(trainer, held), stop
            )
            if halve is not None:
                check_monitor("halving", halve.monitor, trainer, parts[1])
            members.append(Member(trainer, *parts, n_epochs, stop, f"trainers[{number}]"))
    for number, trainer in enumerate(trainers):
        with _named(number), trainer.model.backend.active():
            trainer.optimizer.check()
            trainer.engine.recipe()  # makes the optimiser's state, or says why it cannot
    with Progress(sum(member.epochs for member in members), progress) as bar:
        how = train(members, bar) if halve is None else Race(halve, members, candidates).run(bar)
    if all(isinstance(member.error, DivergenceError) for member in members):
        raise _all_diverged([member.error for member in members])
    return Histories([trainer.history for trainer in trainers], how)


class _Given:
    """X and y, checked once for all trainers that ask the same of them."""

    def __init__(self, X: Any, y: Any) -> None:
        self._X, self._y = X, y
        self._checked: dict[tuple, Any] = {}

    def rows(self, trainer: Trainer, index: Any, w: Any) -> Rows:
        """Those with the numbers `index`, fit for `trainer`."""
        model, loss = trainer.model, trainer.loss
        n_in, n_out, backend, dtype = model.layer_sizes[0], model.layer_sizes[-1], model.backend, model.dtype
        codes = model.categories
        key: tuple = (n_in, backend.device, dtype, *codes.items())
        X = self._once(key, lambda: check_features(self._X, n_in, backend, dtype, "X", codes))
        n = int(X.shape[0])
        if n == 0:
            raise ValueError("X has no rows; expected at least one")
        key = (n_out, backend.device, dtype, loss.name)
        y = self._once(key, lambda: check_targets(self._y, n, n_out, loss, backend, dtype, "y", X))
        numbers = None if index is None else _check_index(index, n)
        return Rows(X, y, self._weights(trainer, w, numbers, n), numbers)

    def validation(self, trainer: Trainer, held: Any) -> Any:
        """`held`, or the rows that it has, checked once for all that are given the same ones."""
        if not isinstance(held, tuple) or len(held) not in (2, 3):
            return held
        model, loss = trainer.model, trainer.loss
        X, y, w = (*held, None)[:3]
        shape = model.layer_sizes[0], model.layer_sizes[-1], *model.categories.items()
        key = id(X), id(y), id(w), *shape, loss.name, model.backend.device, model.dtype
        return self._once(key, lambda: check_rows(model, loss, X, y, w, "_val"))

    def _weights(self, trainer: Trainer, w: Any, index: np.ndarray | None, n: int) -> Any:
        """Of all rows; those of `index` as a fit of these rows alone would have them."""
        if w is None:
            return None
        model = trainer.model
        key = (id(w), model.backend.device, model.dtype, "w")
        checked = self._once(key, lambda: check_weights(w, n, model.backend, model.dtype))
        if index is None:
            return checked
        host = model.backend.to_numpy(w) if is_cuda(w) else np.asarray(w)
        own = check_weights(host[index], len(index), model.backend, model.dtype)
        if bool((own == checked[index]).all()):
            return checked
        scaled = np.zeros_like(checked)
        scaled[index] = own
        return scaled

    def _once(self, key: tuple, check: Callable[[], Any]) -> Any:
        if key not in self._checked:
            self._checked[key] = check()
        return self._checked[key]


def _check_trainers(trainers: Any) -> list[Trainer]:
    if isinstance(trainers, Trainer):
        raise TypeError("trainers is one Trainer; expected a list of them (or call its fit)")
    checked = list(trainers)
    if not checked:
        raise ValueError("trainers is empty; expected at least one gpumlp.Trainer")
    first: dict[int, int] = {}
    for number, trainer in enumerate(checked):
        if not isinstance(trainer, Trainer):
            raise TypeError(f"trainers[{number}]={trainer!r}; expected a gpumlp.Trainer")
        if trainer.communicator is not None:
            raise ValueError(
                f"trainers[{number}] has a communicator; give it to fit_many, which spreads whole networks"
            )
        for what in ("model", "optimizer"):
            other = first.setdefault(id(getattr(trainer, what)), number)
            if other != number:
                raise ValueError(
                    f"trainers[{other}] and trainers[{number}] have the same {what}; each needs its own"
                )
    return checked


def _per_trainer(name: str, value: Any, n: int, are_many: Callable[[Any], bool]) -> list[Any]:
    """One for each of `n` trainers, of a list or of what is the same for all."""
    if not are_many(value):
        return [value] * n
    values = list(value)
    if len(values) != n:
        one = {"validation": " (one for all is a tuple)", "rows": ""}.get(name, " or one for all")
        raise ValueError(f"{name} has {len(values)} entries; expected one for each of {n} trainers{one}")
    return values


def _check_groups(groups: Any, n: int) -> list[Hashable]:
    """The candidate of each of `n` trainers."""
    if groups is None:
        return list(range(n))
    labels = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(labels) != n:
        raise ValueError(f"groups has {len(labels)} entries; expected one for each of {n} trainers")
    for number, label in enumerate(labels):
        if not isinstance(label, Hashable):
            raise TypeError(f"groups[{number}]={label!r}; expected a number or a name")
    return labels


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1


def _are_weights(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(w is None or hasattr(w, "__len__") for w in value)
    return getattr(value, "ndim", 1) == 2


def _check_index(index: Any, n: int) -> np.ndarray:
    numbers = index.get() if is_cuda(index) else np.asarray(index)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not numbers.size:
        hint = "; numpy.flatnonzero makes numbers of truth values" if numbers.dtype.kind == "b" else ""
        raise ValueError(
            f"rows is {numbers.dtype} of shape {numbers.shape}; expected at least one row number, in one "
            f"dimension{hint}"
        )
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= n:
        raise ValueError(f"rows has numbers from {low} to {high}; X has {n} rows, expected 0 to {n - 1}")
    return np.ascontiguousarray(numbers, np.int32)


@contextmanager
def _named(number: int) -> Iterator[None]:
    """Errors of the checks name the trainer."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"trainers[{number}]: {error}") from error


def _all_diverged(errors: Sequence[Any]) -> DivergenceError:
    if len(errors) == 1:
        return errors[0]
    error = DivergenceError(f"all {len(errors)} networks diverged; the first: {errors[0]}")
    error.where = errors[0].where
    return error
