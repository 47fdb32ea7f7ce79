"""What the two estimators of tables share: reading, encoding, training, answering."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gpumlp import checks
from gpumlp.backends import get_backend
from gpumlp.distributed import Communicator, get_communicator
from gpumlp.errors import suggest
from gpumlp.tables import Frame
from gpumlp.tabular.choice import Watch
from gpumlp.tabular.encoder import Encoder, Roles
from gpumlp.tabular.inputs import check_weights, read_frame, same_columns
from gpumlp.tabular.notes import notes_of
from gpumlp.tabular.pack import Pack, Problem, train_pack
from gpumlp.tabular.recipe import FEW, QUALITIES, settings_of
from gpumlp.tabular.splits import Split, make_splits

__all__ = ["BaseTabular"]


@dataclass
class _Rows:
    """X as a frame or encoded, encoded targets, weights."""

    X: Any
    y: np.ndarray
    w: np.ndarray | None

    def followed_by(self, other: _Rows) -> _Rows:
        """These rows, then the others, which are encoded as well."""
        w = None
        if self.w is not None or other.w is not None:
            w = np.concatenate([np.ones(len(part.y)) if part.w is None else part.w for part in (self, other)])
        return _Rows(np.concatenate([self.X, other.X]), np.concatenate([self.y, other.y]), w)


class BaseTabular(BaseEstimator, ABC):
    """Base of `TabularClassifier` and `TabularRegressor`."""

    _loss: ClassVar[str]

    # ---- what the classifier and the regressor define -----------------------------------------------
    @abstractmethod
    def _read_target(self, y: Any, name: str = "y") -> np.ndarray:
        """Labels or values on the host."""

    @abstractmethod
    def _learn_target(self, y: np.ndarray, w: np.ndarray | None) -> None:
        """The classes, or mean and scale."""

    @abstractmethod
    def _encode_target(self, y: np.ndarray, name: str = "y") -> np.ndarray:
        """What a network is trained on."""

    @abstractmethod
    def _weights(self, y: np.ndarray, w: np.ndarray | None) -> np.ndarray | None:
        """Weights of rows, those of their classes included."""

    @property
    @abstractmethod
    def _n_out(self) -> int:
        """Outputs of a network."""

    @property
    @abstractmethod
    def _n_classes(self) -> int:
        """0 for a regression."""

    @abstractmethod
    def _constant(self, y: np.ndarray, w: np.ndarray | None) -> np.ndarray:
        """The best answer that does not look at X."""

    @abstractmethod
    def _figures(self, answers: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> dict[str, float]:
        """Of networks' answers to rows with encoded targets."""

    # ---- fitting -----------------------------------------------
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
        progress: Watch | None = None,
        communicator: Any = None,
    ) -> Any:
        """Learn from the rows of a table.

        Parameters
        ----------
        X : table (n, n_columns)
            pandas, polars, Arrow, a dict of columns, NumPy, CuPy; see `gpumlp.tables.as_frame`.
        y : array-like (n,), for a regression also (n, n_outputs)
            Labels of any kind, or numbers.
        sample_weight : array-like (n,), optional
            Finite and >= 0, not all 0.
        X_val, y_val, sample_weight_val : optional
            Rows that choose the networks, instead of a part of X.
        progress : callable, optional
            Is called with a `gpumlp.tabular.choice.Standing` (networks that are still training, epochs, the
            best validation scores so far) several times a second at most, and at the end.
        communicator : "auto" or gpumlp.distributed.Communicator, optional
            Spread the networks over the ranks of a job, as `gpumlp.fit_many` does; all of them give the same
            table, with the same `random_state`, and have the same ensemble afterwards.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            What cannot be learnt from; nothing has been changed then.
        KeyboardInterrupt
            After Ctrl-C; if a network has been trained for an epoch, the estimator is one of what was learnt
            until then.
        """
        start = time.monotonic()
        before = dict(vars(self))
        try:
            job = None if communicator is None else get_communicator(communicator)
            interrupted = self._fit(
                start, (X, y, sample_weight), (X_val, y_val, sample_weight_val), progress, job
            )
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        if interrupted:
            raise KeyboardInterrupt
        return self

    def _fit(
        self, start: float, given: tuple, given_val: tuple, watch: Watch | None, job: Communicator | None
    ) -> bool:
        """Whether Ctrl-C ended the training."""
        networks, seed = self._check_parameters()
        if self.time_limit is not None and job is not None and job.size > 1:
            raise ValueError("time_limit is for one process: ranks would plan with clocks of their own")
        if watch is not None and not callable(watch):
            raise TypeError(f"progress={watch!r}; expected something that can be called with a Standing")
        frame, y, w = self._read_rows(*given)
        used = np.arange(len(y)) if w is None else np.flatnonzero(w)
        if len(used) < 2 <= len(y):
            raise ValueError(f"only {len(used)} of {len(y)} rows has a weight above 0; 2 are needed")
        if len(used) < len(y):  # a row of weight 0 counts as absent
            frame, y, w = frame.take(used), y[used], None if w is None else w[used]
        if len(y) < 2:
            raise ValueError(f"Found array with {len(y)} sample(s) while a minimum of 2 is required.")
        self._learn_target(y, w)
        w = self._weights(y, w)
        target = self._encode_target(y)
        splits = make_splits(target, self._n_classes, networks, FEW, seed)
        val: _Rows | None = None
        if any(part is not None for part in given_val):
            val = self._read_validation(*given_val)
            n = len(target)
            splits = [Split(np.arange(n), np.arange(n, n + len(val.y)))]
        train = np.unique(np.concatenate([each.train for each in splits]))
        roles = Roles(*(_listed(name, getattr(self, name)) for name in ("categorical", "numeric", "drop")))
        self.encoder_ = Encoder.fit(frame, train, w, roles)
        self._set_names(frame)
        if self.verbose:
            print(self.encoder_.summary())
        rows = _Rows(self.encoder_.transform(frame), target, w)
        if val is not None:
            rows = rows.followed_by(_Rows(self.encoder_.transform(same_columns(self, val.X)), val.y, val.w))
        dtype = np.dtype("float64" if splits[0].val is None else "float32")
        problem = Problem(
            rows.X.astype(dtype, copy=False),
            rows.y if self._n_classes else rows.y.astype(dtype),
            rows.w,
            self._n_out,
            self._loss,
            get_backend(self.device),
            self.encoder_.n_numbers,
            self.encoder_.code_sizes,
        )
        settings = settings_of(self.quality, networks, len(splits[0].train), self.encoder_.n_numbers, seed)
        deadline = None if self.time_limit is None else start + self.time_limit
        pack = train_pack(
            problem,
            splits,
            settings,
            deadline=deadline,
            progress=bool(self.verbose),
            watch=watch,
            figures=self._figures,
            job=job,
        )
        self._keep(problem, pack, frame)
        return pack.interrupted

    def _check_parameters(self) -> tuple[int, int]:
        """(number of networks, seed)."""
        if self.quality not in QUALITIES:
            raise ValueError(suggest("quality", self.quality, QUALITIES))
        networks = QUALITIES[self.quality]
        if self.n_networks is not None:
            networks = checks.whole("n_networks", self.n_networks)
        if self.time_limit is not None:
            checks.number("time_limit", self.time_limit, 0, open_low=True)
        return networks, int(check_random_state(self.random_state).randint(2**31 - 1))

    def _read_rows(self, X: Any, y: Any, w: Any, suffix: str = "") -> tuple[Frame, np.ndarray, Any]:
        frame = read_frame(self, X)
        values = self._read_target(y, f"y{suffix}")
        if len(values) != frame.n_rows:
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: [{frame.n_rows}, {len(values)}]"
            )
        return frame, values, check_weights(w, frame.n_rows, f"sample_weight{suffix}")

    def _read_validation(self, X: Any, y: Any, w: Any) -> _Rows:
        if X is None or y is None:
            raise ValueError("X_val and y_val must be given together")
        frame, values, w = self._read_rows(X, y, w, "_val")
        return _Rows(frame, self._encode_target(values, "y_val"), self._weights(values, w))

    def _set_names(self, frame: Frame) -> None:
        self.n_features_in_ = len(frame.columns)
        self.__dict__.pop("feature_names_in_", None)
        if frame.named:
            self.feature_names_in_ = np.array(frame.names, object)

    def _keep(self, problem: Problem, pack: Pack, frame: Frame) -> None:
        """What a fit leaves."""
        self.ensemble_ = pack.ensemble
        self.columns_ = {
            name: self.encoder_.kinds().get(name) or f"not used: it {self.encoder_.dropped[name]}"
            for name in self.encoder_.names
        }
        self.networks_, self.curves_ = pack.summary(), pack.curves()
        self.validation_scores_, train = self._judge(problem, pack)
        notes = notes_of(frame, self.encoder_, self.validation_scores_, train, pack.late)
        for note in notes:
            if note.warn:
                warnings.warn(str(note), UserWarning, stacklevel=4)
        self.notes_ = [str(note) for note in notes]

    def _judge(self, problem: Problem, pack: Pack) -> tuple[dict[str, float], dict]:
        """Figures of the validation rows, those of a constant beside them, and figures of training rows."""
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for split, _, answers in pack.folds:
            if split.val is not None and answers is not None:
                constant = self._constant(
                    problem.y[split.train], None if problem.w is None else problem.w[split.train]
                )
                parts.append((split.val, answers, np.broadcast_to(constant, answers.shape)))
        if not parts:
            return {}, {}
        rows, answers, constants = (np.concatenate(each) for each in zip(*parts, strict=True))
        self.n_validation_rows_ = len(rows)
        y, w = problem.y[rows], None if problem.w is None else problem.w[rows]
        scores = self._figures(answers, y, w)
        scores.update((f"constant_{k}", v) for k, v in self._figures(constants, y, w).items())
        split, ensemble, _ = pack.folds[0]
        some = split.train[: len(rows)]
        w = None if problem.w is None else problem.w[some]
        return scores, self._figures(_answers_of(ensemble, problem.X[some]), problem.y[some], w)

    # ---- answering -----------------------------------------------
    def _answers(self, X: Any) -> np.ndarray:
        """Mean of the networks' probabilities or values, (n, n_outputs)."""
        frame = same_columns(self, read_frame(self, X))
        return _answers_of(self.ensemble_, self.encoder_.transform(frame))

    def save(self, path: Any) -> None:
        """Write the estimator to one .npz file, atomically; `gpumlp.load` reads it.  Loading never runs code.

        Raises
        ------
        sklearn.exceptions.NotFittedError
        ValueError
            Labels that no file can hold.
        OSError
            The file cannot be written.
        """
        from gpumlp.tabular.saved import save_estimator

        check_is_fitted(self)
        save_estimator(self, path)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """As in scikit-learn; once fitted, with what the columns are."""
        text: str = super().__repr__(N_CHAR_MAX)
        return f"{text}  # {self.encoder_.summary()}" if hasattr(self, "encoder_") else text

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def _answers_of(ensemble: Any, X: np.ndarray) -> np.ndarray:
    if ensemble.output == "softmax":
        return ensemble.predict_proba(X)
    answers = ensemble.predict(X)
    return answers.reshape(len(X), -1)


def _listed(name: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, int)):
        raise TypeError(f"{name}={value!r}; expected a list of columns: [{value!r}]")
    return list(value)
