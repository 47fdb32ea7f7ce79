"""`Trainer`: trains a network on rows; the loop over epochs is in `loop.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.backends.arrays import is_cuda
from gpumlp.backends.base import on_device
from gpumlp.distributed import Communicator
from gpumlp.losses import Loss, LossObject, check_outputs, get_loss
from gpumlp.model import MLP
from gpumlp.optimizers import Optimizer, get_optimizer, with_penalties
from gpumlp.plans import Objective
from gpumlp.rows import Rows, check_rows
from gpumlp.schedules import check_known
from gpumlp.training.batches import Batches
from gpumlp.training.engine import Engine
from gpumlp.training.filed import Filed
from gpumlp.training.fitting import given_rows, rows_of_fit
from gpumlp.training.history import EarlyStopping, History, get_early_stopping
from gpumlp.training.job import agreed
from gpumlp.training.loop import Loop
from gpumlp.training.placement import place_evaluation
from gpumlp.training.progress import Progress
from gpumlp.training.settings import Callback
from gpumlp.training.table import step_table

__all__ = ["Trainer"]


class Trainer(Filed):
    """Trains an `MLP`.

    Parameters
    ----------
    model : MLP
        Trained in place, on the device where it is.  Training (not making the trainer) sets its `output`,
        which says how `predict` reads the network, to fit the loss.
    loss : str, an object with a constant, or a loss of `gpumlp.losses.LOSSES`
        "softmax_cross_entropy", "binary_cross_entropy", "squared_error" (half the mean square),
        "absolute_error", "huber", "poisson", "quantile".  Objects: `gpumlp.Huber`, `gpumlp.Quantile`,
        `gpumlp.SoftmaxCrossEntropy`, `gpumlp.BinaryCrossEntropy` (smoothed labels).
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
    average : float
        > 0: the model has moving averages of the parameters between steps, for evaluation, early stopping,
        callbacks, predictions and files; steps go on from the parameters themselves, which are then
        `optimizer.state[0]["average"]`.  Usually 0.99 to 0.9999; see `Optimizer`.
    clip_norm : float, optional
        Scale the gradient of the data loss down to this Euclidean norm if it is longer (to 0 if the norm
        overflows).
    schedule : str, Schedule or callable, optional
        Factor on the learning rate per step; see `gpumlp.schedules`.
    seed : int
        Seed of row order, validation split and dropout masks; see `gpumlp.rows.order`.
    precision : str
        How training steps compute: "float32" (the model's dtype), on CUDA also "tf32", "float16", "bfloat16"
        (parameters and optimiser state stay float32; see `gpumlp.plans.precision`).  Evaluation is in the
        model's dtype.
    callbacks : sequence of callables
        Each is called as ``callback(trainer, history)`` after every epoch; one that returns True ends the
        training.
    communicator : "auto" or Communicator, optional
        Train with all processes of a job, its ranks, which make equal trainers; see docs/distributed.md and
        `gpumlp.distributed.get_communicator`.
    reproducible : bool
        With a communicator: the same bits on any number of ranks.  False is a little faster.

    Attributes
    ----------
    model, optimizer, batch_size, clip_norm, schedule, seed, precision, callbacks
        The parameters.  They may be assigned, also in a callback; the next step or epoch uses the new value.
    epoch : int
        Passes over the rows done so far.
    history : History
        Figures of the last `fit`.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of range; the message says what was given and what is expected.

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
        loss: str | LossObject | Loss,
        optimizer: str | Optimizer,
        batch_size: int = 128,
        l1: float = 0.0,
        l2: float = 0.0,
        proximal: bool = False,
        average: float = 0.0,
        clip_norm: float | None = None,
        schedule: str | Callable | None = None,
        seed: int = 0,
        precision: str = "float32",
        callbacks: Sequence[Callback] = (),
        communicator: str | Communicator | None = None,
        reproducible: bool = True,
    ) -> None:
        self.model = model
        self.communicator, self.reproducible = communicator, reproducible
        kind, delta = get_loss(loss)
        self.optimizer = with_penalties(get_optimizer(optimizer), l1, l2, proximal, average)
        self.batch_size = batch_size
        self.clip_norm = clip_norm
        self.schedule, self.seed, self.precision = schedule, seed, precision
        self.callbacks = callbacks
        n_out = model.layer_sizes[-1]
        check_outputs(kind, delta, n_out)
        # elementwise losses are means over the outputs
        self._objective = Objective(kind, delta, 1.0 if kind.classes else 1.0 / n_out)
        self.epoch = 0
        self.history = History()
        self._batches: Batches | None = None  # made again after unpickling and after the model has moved
        self._loss_scale: np.ndarray | None = None
        self.engine  # noqa: B018 - made now, so that what the device cannot do is reported here

    @property
    def objective(self) -> Objective:
        """The loss with its constants."""
        return self._objective

    @property
    def loss(self) -> Loss:
        """The loss that is minimised."""
        return self.objective.loss

    @property
    def engine(self) -> Engine:
        """Buffers and plans on the device where the model is now; new ones after it has moved."""
        return self._batches_here().engine

    def _batches_here(self) -> Batches:
        self.model.check()
        batches, job = self._batches, (self.communicator, self.reproducible)
        if batches is None or not batches.engine.serves(self.model, self.precision, self.seed, job):
            same = {"precision": self.precision, "seed": self.seed, "job": job}
            scale = self.loss_scale_state()
            engine = Engine(self.model, self.objective, self.optimizer, **same, loss_scale=scale)
            batches = self._batches = Batches(engine)
        batches.engine.optimizer, batches.engine.clip_norm = self.optimizer, self.clip_norm
        return batches

    # ---- training -----------------------------------------------
    @on_device
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        epochs: int,
        validation: Any = None,
        sample_weight: Any = None,
        early_stopping: EarlyStopping | bool | None = None,
        progress: bool | None = None,
        streaming: bool | None = None,
        check: bool = True,
        rows: str | np.ndarray = "replicated",
    ) -> History:
        """Train for `epochs` passes over the rows.

        Parameters
        ----------
        X : array (n_rows, n_inputs), or RowSource
            NumPy or CuPy; converted to the model's dtype and put on its device once.  A source, such as
            `gpumlp.rows.ParquetRows`, has y and weights as well, and is read once per epoch.
        y : array
            Class numbers (n_rows,) for softmax_cross_entropy, else values (n_rows,) or (n_rows, n_outputs).
        epochs : int
        validation : float or (X_val, y_val) or (X_val, y_val, weights), optional
            Held-out rows, evaluated after every epoch: a fraction of the given ones (seeded split), or
            rows of their own, which may also be a source.
        sample_weight : array (n_rows,), optional
            Factors >= 0 on the rows' losses; a batch's loss is the weighted mean.
        early_stopping : EarlyStopping or True, optional
        progress : bool, optional
            Show a progress bar; by default only on a terminal or in a notebook.
        streaming : bool, optional
            Keep the rows on the host and send them in chunks; by default only if they do not fit on the
            device.  The parameters are the same to the bit (losses are summed in another order); see
            `gpumlp.training.streamed`.  A source is always streamed.
        check : bool
            Look at the values of X, y and validation rows first.  False, for arrays that were checked before,
            saves a pass over them, and on a device the wait; class numbers are looked at all the same.
        rows : "replicated", "sharded" or int array
            With a communicator: whether every rank gives all rows, or its own part of them (validation rows
            as well).  The bits are those of all parts in the order of the ranks.  An array has the number
            of each of this rank's rows among those of all ranks: then it is the order of these numbers.
            A source is given whole; "sharded", each rank reads some of its groups: docs/distributed.md.

        Returns
        -------
        History

        Raises
        ------
        DivergenceError
            The loss became NaN or infinite; the message names epoch and step.
        ValueError, TypeError
            Rows, targets or parameters that do not fit; then nothing has been changed.
        MemoryError
            Network, optimiser state and one batch do not fit on the device.
        """
        start = time.perf_counter()
        epochs = checks.whole("epochs", epochs)
        flags = {"progress": progress, "streaming": streaming}
        progress, streaming = (v if v is None else checks.flag(name, v) for name, v in flags.items())
        stop = get_early_stopping(early_stopping)
        look, given = checks.flag("check", check), (X, y, sample_weight)
        train, val = rows_of_fit(self, given, rows, validation, stop, epochs, look)
        loop = agreed(self.communicator, lambda: Loop(self, train, val, epochs, streaming, start))
        self.history = History()
        shown = Progress(epochs, progress if self.leads else False)
        with shown as bar, bar.watching(lambda: len(self.history) + loop.part):
            loop.run(stop, [bar, *self.callbacks])
        return self.history

    @on_device
    def step(
        self, X: Any, y: Any, sample_weight: Any = None, *, loss: bool = False, check: bool | None = None
    ) -> Any:
        """One update on one batch (any number of rows); like a step of `fit` except for the order of rows.
        Raises ValueError if the schedule depends on the number of planned steps, which only `fit` knows.

        Parameters
        ----------
        loss : bool
            Return the batch's loss before the update, without penalties: a scalar on the model's device,
            which is not waited for.
        check : bool, optional
            Look at the values first; of CuPy rows that means waiting for the device.  By default so, but for
            CuPy rows with `loss`: values or class numbers that are none make loss and parameters NaN (in
            float16 the step is left out); codes of categories that are none count as the nearest ones.
        """
        check_known(self.schedule, "step()")
        wanted = checks.flag("loss", loss)
        rows, screen = self._batch(X, y, sample_weight, check, wanted)
        self.set_output()
        batches, epochs = self._run_batch(rows, True, screen)
        return batches.loss(epochs) if wanted else None

    def set_output(self) -> None:
        """From now on the model predicts as the loss requires: called before the first update."""
        self.model.output = self.loss.link

    def table(self, batch_weights: np.ndarray, planned: int) -> dict[str, np.ndarray]:
        """The step table of the coming steps, the first of `planned` ones; see `step_table`."""
        done = self.optimizer.t = checks.whole("optimizer.t", self.optimizer.t, 0)
        return step_table(self.optimizer, self.schedule, batch_weights, done + planned)

    def _batch(self, X: Any, y: Any, w: Any, check: bool | None, shown: bool) -> tuple[Rows, bool]:
        """Rows of a batch, and whether class numbers are to be looked at by the device; `shown`: its figures,
        which show values that are not finite, are returned."""
        there = is_cuda(X)
        look = not (shown and there) if check is None else checks.flag("check", check)
        screen = there and not look and not self.model.embedded and self.loss.classes
        return check_rows(self.model, self.loss, X, y, w, look=look, labels=not screen), screen

    def _run_batch(self, rows: Rows, update: bool, screen: bool) -> tuple[Batches, Any]:
        batches = self._batches_here()
        if self.communicator is not None:
            self.communicator.begin()
        return batches, batches.run(rows, lambda weights: self.table(weights, 1), update, screen)

    # ---- figures -----------------------------------------------
    @on_device
    def evaluate(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        check: bool = True,
        rows: str = "replicated",
    ) -> dict[str, float]:
        """Figures on given rows, or on those of a `gpumlp.rows.RowSource`, without dropout and penalties;
        `check` and `rows` as for `fit`.

        Returns
        -------
        dict
            {"loss", "accuracy"}, or for regression {"loss", "rmse", "r2"} (over all outputs together).
        """
        engine, look = self.engine, checks.flag("check", check)
        given = given_rows(self, X, y, sample_weight, rows, look=look)
        evaluation = place_evaluation(engine, given)
        evaluation.run()
        return evaluation.figures(engine.read_sums()[1:3])

    @on_device
    def loss_and_grads(
        self, X: Any, y: Any, sample_weight: Any = None, *, check: bool | None = None
    ) -> tuple[Any, list[Any]]:
        """Training objective and its gradient on given rows, by the code that `step` runs (dropout as in step
        t); `check` as there, by default True for NumPy rows and False for CuPy rows.

        Returns
        -------
        (float, [(dW (n_in, n_out), db (n_out,)), ...])
            The mean loss plus l1 |w| + (l2/2) |w|^2, and the gradients, as `get_parameters` gives the
            parameters; of CuPy rows a scalar and arrays on the device, which is not waited for, else on the
            host.  Not clipped; decoupled decay is not part of the objective.  The list has the attributes of
            `gpumlp.plans.Grads`, and ``optimizer.update([*model.weights, *model.biases], grads)`` takes it.
        """
        rows, screen = self._batch(X, y, sample_weight, check, True)
        batches, epochs = self._run_batch(rows, False, screen)
        return batches.objective(epochs, is_cuda(X))

    # ---- printing and pickling -----------------------------------------------
    def __repr__(self) -> str:
        rule = f"{type(self.optimizer).__name__}(lr={self.optimizer.lr:g})"
        return (
            f"Trainer({self.model!r}, loss={self.loss.name!r}, optimizer={rule}, "
            f"batch_size={self.batch_size}, epoch={self.epoch})"
        )

    def loss_scale_state(self) -> np.ndarray | None:
        """State of the loss scaling, on the host; None except for float16."""
        return self._loss_scale if self._batches is None else self._batches.engine.loss_scale()

    def restore_loss_scale(self, state: np.ndarray) -> None:
        """Go on with what `loss_scale_state` gave."""
        self._loss_scale, self._batches = state, None

    def __getstate__(self) -> dict[str, Any]:
        gone = {"_batches": None, "communicator": None}
        return {**self.__dict__, **gone, "_loss_scale": self.loss_scale_state()}
