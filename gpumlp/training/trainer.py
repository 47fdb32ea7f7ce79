"""The training loop: epochs, validation, early stopping, callbacks, history."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpumlp.backends.base import on_device
from gpumlp.errors import diverged, suggest
from gpumlp.losses import Huber, get_loss
from gpumlp.model.mlp import MLP, unflatten
from gpumlp.optimizers import Optimizer, get_optimizer, with_penalties
from gpumlp.plans.precision import check_precision
from gpumlp.rows.checked import (
    Rows,
    check_rows,
    check_two_classes,
    epoch_order,
    is_number,
    positive_int,
    split_validation,
)
from gpumlp.schedules import get_schedule
from gpumlp.training.engine import BUFFERS, TrainerBase
from gpumlp.training.epochs import Evaluation, Objective, Session, batch_weights
from gpumlp.training.history import EarlyStopping, History, get_early_stopping
from gpumlp.training.streamed import StreamEvaluation, StreamSession

__all__ = ["Trainer"]

Callback = Callable[["Trainer", History], Any]


class Trainer(TrainerBase):
    """Trains an `MLP`.

    Parameters
    ----------
    model : MLP
        Trained in place, on the device where it is.  Training (not making the trainer) sets its `output`,
        which says how `predict` reads the network, to fit the loss.
    loss : str or gpumlp.Huber
        "softmax_cross_entropy", "binary_cross_entropy", "squared_error" (half the mean square),
        "absolute_error", "huber", "poisson".
    optimizer : str or Optimizer
        A name, or an object such as ``gpumlp.Adam(lr=1e-3)``.  The trainer works with a copy of it,
        `self.optimizer`.
    batch_size : int
        Rows per step; a larger one than the data means one batch per epoch.  The last batch of an epoch may
        be shorter and counts as a full step.
    l1, l2 : float
        Penalties l1 sum |w| and (l2/2) sum w^2 on weights, not biases; see `Optimizer`.
    proximal : bool
        Treat l1 by soft thresholding (exact zeros) instead of the subgradient.
    clip_norm : float, optional
        Scale the gradient of the data loss down to this Euclidean norm where it is longer (to 0 where the
        norm overflows).
    schedule : str, Schedule or callable, optional
        Factor on the learning rate per step; see `gpumlp.schedules`.
    seed : int
        Of row order, validation split and dropout masks; see `gpumlp.rows.checked`.
    precision : str
        Of training steps: "float32" (the model's dtype), on CUDA also "tf32", "float16" and "bfloat16"
        (parameters and optimiser state stay float32; see `gpumlp.plans.precision`).  Evaluation is in the
        model's dtype.
    callbacks : sequence of callables
        Each is called as ``callback(trainer, history)`` after every epoch; one that returns True ends the
        training.

    Raises
    ------
    ValueError, TypeError
        A parameter out of its range; the message says what was given and what is expected.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> model = gpumlp.MLP([1, 1], device="cpu", dtype="float64")
    >>> trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.SGD(lr=0.5), batch_size=16)
    >>> history = trainer.fit(X, 3 * X[:, 0] + 1, epochs=20)
    >>> np.round(model.weights[0][0, 0], 3), np.round(model.biases[0][0], 3)
    (np.float64(3.0), np.float64(1.0))
    """

    def __init__(
        self,
        model: MLP,
        *,
        loss: str | Huber,
        optimizer: str | Optimizer,
        batch_size: int = 128,
        l1: float = 0.0,
        l2: float = 0.0,
        proximal: bool = False,
        clip_norm: float | None = None,
        schedule: str | Callable | None = None,
        seed: int = 0,
        precision: str = "float32",
        callbacks: Sequence[Callback] = (),
    ) -> None:
        if not isinstance(model, MLP):
            raise TypeError(f"model={model!r}; expected a gpumlp.MLP")
        self.model = model
        self.loss, delta = get_loss(loss)
        self.optimizer = with_penalties(get_optimizer(optimizer), l1, l2, proximal)
        self.batch_size = positive_int("batch_size", batch_size)
        if clip_norm is not None and not (is_number(clip_norm) and 0 < clip_norm < math.inf):
            raise ValueError(f"clip_norm={clip_norm!r}; expected None or a finite number > 0")
        self.clip_norm = clip_norm
        self.schedule = get_schedule(schedule)
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise ValueError(f"seed={seed!r}; expected an integer >= 0 and < 2^63")
        self.seed = int(seed)
        self.precision = check_precision(precision)
        self.callbacks = _check_callbacks(callbacks)
        n_out = model.layer_sizes[-1]
        if self.loss.classes and n_out < 2:
            raise ValueError(
                f"{self.loss.name} needs at least 2 outputs (one per class), the network has {n_out}; "
                "for two classes with one output use binary_cross_entropy"
            )
        # elementwise losses are means over the outputs
        self.objective = Objective(self.loss, delta, 1.0 if self.loss.classes else 1.0 / n_out)
        self.epoch = 0
        self._backend: Any = None
        self._ready()

    # ---- public -----------------------------------------------
    @on_device
    def fit(
        self,
        X: Any,
        y: Any,
        *,
        epochs: int,
        validation: Any = None,
        sample_weight: Any = None,
        early_stopping: EarlyStopping | bool | None = None,
        progress: bool | None = None,
        streaming: bool | None = None,
    ) -> History:
        """Train for `epochs` passes over the rows.

        Parameters
        ----------
        X : array (n_rows, n_inputs)
            NumPy or CuPy; converted to the model's dtype and put on its device once.
        y : array
            Class numbers (n_rows,) for softmax_cross_entropy, else values (n_rows,) or (n_rows, n_outputs).
        epochs : int
        validation : float or (X_val, y_val) or (X_val, y_val, weights), optional
            Held-out rows, evaluated after every epoch: a fraction of the given ones (seeded split), or other
            ones.
        sample_weight : array (n_rows,), optional
            Factors >= 0 on the rows' losses; a batch's loss is the weighted mean.
        early_stopping : EarlyStopping or True, optional
        progress : bool, optional
            Show a progress bar; by default only on a terminal.
        streaming : bool, optional
            Keep the rows on the host and send them in chunks.  By default where they do not fit on the
            device.  The parameters are the same to the bit (losses are summed in another order); see
            `gpumlp.training.streamed`.

        Returns
        -------
        History

        Raises
        ------
        DivergenceError
            The loss became NaN or infinite; the message names epoch and step.
        ValueError, TypeError
            Rows, targets or parameters that do not fit; nothing has been changed then.
        MemoryError
            Network, optimiser state and one batch do not fit on the device.
        """
        epochs = positive_int("epochs", epochs)
        stop = get_early_stopping(early_stopping)
        rows = check_rows(self.model, self.loss, X, y, sample_weight)
        train, val = split_validation(self.model, self.loss, rows, validation, self.seed)
        if self.loss.classes:
            check_two_classes(train.take(train.y))
        self._ready()
        names = ["loss", *(f"val_{m}" for m in self.objective.metrics if val)]
        if stop and stop.monitor not in names:
            raise ValueError(
                f"early stopping: {suggest('metric', stop.monitor, names)}"
                + ("" if val else " Give validation data for the val_ metrics.")
            )
        from gpumlp.training.progress import Progress

        session, evaluation = self._plans(train, val, streaming)
        bar = Progress(epochs, progress)
        history = History()
        self._precision.refresh()
        try:
            self._loop(session, train, evaluation, epochs, stop, history, bar)
        finally:
            bar.close()
        return history

    @on_device
    def step(self, X: Any, y: Any, sample_weight: Any = None) -> None:
        """One update on one batch (any number of rows); like a step of `fit` but for the order of rows.

        Raises ValueError if the schedule depends on the number of planned steps, which only `fit` knows.
        """
        if getattr(self.schedule, "needs_total", False):
            raise ValueError(
                f"{self.schedule} depends on the number of planned steps, which step() does not know; "
                "give it to the schedule, for example gpumlp.schedules.Cosine(steps=1000)"
            )
        self._run_staged(check_rows(self.model, self.loss, X, y, sample_weight), update=True)
        self.optimizer.t += 1
        self.model.output = self.loss.link

    @on_device
    def evaluate(self, X: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """Figures on given rows, without dropout and penalties.

        Returns
        -------
        dict
            {"loss", "accuracy"} for classification, {"loss", "rmse", "r2"} for regression (R2 and RMSE over
            all outputs together).
        """
        self._ready()
        evaluation = self._evaluation(check_rows(self.model, self.loss, X, y, sample_weight))
        evaluation.run()
        return evaluation.figures(self.model.backend.to_numpy(self._sums)[1:3])

    @on_device
    def loss_and_grads(
        self, X: Any, y: Any, sample_weight: Any = None
    ) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
        """Training objective and its gradient on given rows, by the code that `step` runs (dropout as in step
        t).

        Returns
        -------
        (float, [(dW (n_in, n_out), db (n_out,)), ...])
            The mean loss plus l1 |w| + (l2/2) |w|^2, and the gradients on the host.  Not clipped; decoupled
            decay is not part of the objective.
        """
        session = self._run_staged(check_rows(self.model, self.loss, X, y, sample_weight), update=False)
        session.sum_losses(self._sums)
        backend, opt = self.model.backend, self.optimizer
        value = float(backend.to_numpy(self._sums)[0]) / session.data.weight
        grads = unflatten(self.model.layers, backend.to_numpy(self._grads) / self._precision.loss_scale()[0])
        for (dW, _), (W, _) in zip(grads, self.model.get_parameters(), strict=True):
            np.add(dW, opt.l2 * W + opt.l1 * np.sign(W), out=dW)
            value += opt.l1 * float(np.abs(W).sum()) + 0.5 * opt.l2 * float(np.square(W).sum())
        return value, grads

    # ---- the loop -----------------------------------------------
    def _loop(
        self,
        session: Session | StreamSession,
        rows: Rows,
        evaluation: Evaluation | StreamEvaluation | None,
        epochs: int,
        stop: EarlyStopping | None,
        history: History,
        bar: Any,
    ) -> None:
        backend, model = self.model.backend, self.model
        watch = stop or EarlyStopping(monitor="val_loss" if evaluation else "loss", patience=epochs)
        total = self.optimizer.t + epochs * session.n_steps
        skipped = self._precision.loss_scale()[1]
        self._draw_order(rows, session.order)
        best: float | None = None
        saved = None
        try:
            for number in range(epochs):
                start = time.perf_counter()
                table = self._values(batch_weights(rows.w, session.order, session.batch), total)
                model.output = self.loss.link
                with backend.range(f"gpumlp:epoch {self.epoch + 1}"):
                    session.epoch(table, self._sums)
                    self.optimizer.t += session.n_steps
                    self.epoch += 1
                    if evaluation:
                        evaluation.run()
                if number + 1 < epochs:
                    self._draw_order(rows, session.order)  # now, while the device works
                sums = backend.to_numpy(self._sums)
                figures = {"loss": self._mean_loss(session, float(sums[0]), number)}
                figures["lr"] = float(table["lr"][-1])
                if evaluation:
                    figures.update((f"val_{name}", v) for name, v in evaluation.figures(sums[1:3]).items())
                if self._precision.scaler is not None:
                    figures["skipped"], skipped = int(sums[-1]) - skipped, int(sums[-1])
                history.append({**figures, "seconds": time.perf_counter() - start})
                value = history.metrics[watch.monitor][-1]
                if watch.better(value, best):
                    best, history.best_epoch = value, number
                    if stop and stop.restore_best:
                        saved = backend.empty(model.flat_size, model.dtype) if saved is None else saved
                        backend.copy(saved, model.flat)
                bar.update(number, figures)
                ended = [bool(callback(self, history)) for callback in self.callbacks]
                if ended:
                    self._precision.refresh()  # they may have changed the parameters
                since = number - (-1 if history.best_epoch is None else history.best_epoch)
                history.stopped_early = stop is not None and since >= stop.patience
                if history.stopped_early or any(ended):
                    break
        finally:  # also after divergence or Ctrl-C
            if saved is not None:
                backend.copy(model.flat, saved)

    def _draw_order(self, rows: Rows, out: np.ndarray) -> None:
        """Write row numbers in the order of the next epoch."""
        epoch_order(self.seed, self.epoch, rows.n_rows, out, rows.index)

    def _mean_loss(self, session: Session | StreamSession, value: float, number: int) -> float:
        """Mean loss of the epoch from the sum over its rows; DivergenceError if that is not finite."""
        if math.isfinite(value):
            return value / session.weight
        raise diverged(value, number, session.first_bad_step(), self.optimizer.lr)

    # ---- files, printing and pickling -----------------------------------------------
    @on_device
    def save(self, path: Any) -> None:
        """Write model and training to one .npz file, atomically, to go on with `load`.

        The file holds what decides how training goes on: parameters, optimiser state, numbers of steps and
        epochs, seed, settings.  It does not hold callbacks, rows, or the counting of an `EarlyStopping`.
        `save` may be called in a callback.  `gpumlp.load` reads the model alone from the file.

        Raises
        ------
        ValueError
            A parameter is NaN or infinite.
        OSError
            The file cannot be written.
        """
        from gpumlp.training.saved import save_trainer

        save_trainer(self, path)

    @staticmethod
    def load(
        path: Any, device: Any = "auto", *, schedule: Any = None, callbacks: Sequence[Callback] = ()
    ) -> Trainer:
        """The trainer, with its model, that `save` wrote: `fit` on the same rows goes on to the bit.

        Parameters
        ----------
        path : path
        device : str
            As for `MLP`; it need not be the one that the file comes from.
        schedule : optional
            Instead of the saved one; needed if that was a function of your own.
        callbacks : sequence of callables

        Raises
        ------
        gpumlp.ModelFileError
            The file is damaged, or holds no training.
        ValueError, TypeError
            The schedule is missing, or an argument is none of those.

        Examples
        --------
        >>> import numpy as np, gpumlp, tempfile, os
        >>> X, y = np.linspace(-1, 1, 64).reshape(-1, 1), np.linspace(-1, 1, 64) ** 2
        >>> settings = {"loss": "squared_error", "optimizer": gpumlp.Adam(lr=0.01)}
        >>> whole = gpumlp.Trainer(gpumlp.MLP([1, 8, 1], "tanh", device="cpu"), **settings)
        >>> half = gpumlp.Trainer(gpumlp.MLP([1, 8, 1], "tanh", device="cpu"), **settings)
        >>> path = os.path.join(tempfile.mkdtemp(), "half.npz")
        >>> _ = whole.fit(X, y, epochs=4), half.fit(X, y, epochs=2), half.save(path)
        >>> resumed = gpumlp.Trainer.load(path, device="cpu")
        >>> _ = resumed.fit(X, y, epochs=2)
        >>> bool((resumed.model.flat == whole.model.flat).all())
        True
        """
        from gpumlp.training.saved import load_trainer

        checked = _check_callbacks(callbacks)
        if schedule is not None:
            schedule = get_schedule(schedule)
        return load_trainer(Trainer, path, device, schedule=schedule, callbacks=checked)

    def __repr__(self) -> str:
        rule = f"{type(self.optimizer).__name__}(lr={self.optimizer.lr:g})"
        return (
            f"Trainer({self.model!r}, loss={self.loss.name!r}, optimizer={rule}, "
            f"batch_size={self.batch_size}, epoch={self.epoch})"
        )

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k not in BUFFERS}
        scale = self.loss_scale_state()
        return state if scale is None else {**state, "_scaler": scale}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _backend=None)  # `_ready` makes the rest when it is needed


def _check_callbacks(callbacks: Any) -> list[Callback]:
    """The callbacks as a list; TypeError for what cannot be called."""
    if callable(callbacks):
        raise TypeError(f"callbacks={callbacks!r} is one function; give a list: callbacks=[...]")
    for number, callback in enumerate(callbacks):
        if isinstance(callback, EarlyStopping):
            raise TypeError(
                f"callbacks[{number}] is an EarlyStopping; give it to fit: fit(..., early_stopping=...)"
            )
        if not callable(callback):
            raise TypeError(
                f"callbacks[{number}]={callback!r} cannot be called; expected a function of the trainer and "
                "its History"
            )
    return list(callbacks)
