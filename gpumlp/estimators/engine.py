"""What drives an estimator's network: `Trainer`'s plans in scikit-learn's order, scale and stopping rules.

scikit-learn's L2 penalty of a batch is alpha |w|^2 / (2 sum of the batch's weights), so the kernels get it as
a per-step value, and the loss of an epoch is the mean over batches of (loss + penalty), each batch counted by
its rows.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from gpumlp.backends.base import Launch, Op
from gpumlp.kernels.rows import SUM
from gpumlp.losses import Huber
from gpumlp.model.mlp import MLP
from gpumlp.optimizers import OPTIMIZERS, SGD, Optimizer
from gpumlp.plans.operations import penalty_ops
from gpumlp.rows.checked import Rows
from gpumlp.training.epochs import Data, Evaluation, Session
from gpumlp.training.trainer import Trainer

__all__ = ["Engine", "Solver", "make_optimizer"]


def make_optimizer(est: Any) -> Optimizer:
    """The update rule for an estimator's parameters."""
    if est.solver == "sgd":
        momentum = min(float(est.momentum), float(np.nextafter(1, 0)))  # 1 is allowed by scikit-learn
        nesterov = bool(est.nesterovs_momentum) and momentum > 0
        return SGD(lr=0.0, momentum=momentum, nesterov=nesterov, lr_in_velocity=True)
    rule: Any = OPTIMIZERS[est.solver]
    # of scikit-learn's parameters, and its place of eps, what the rule knows
    options = {
        "betas": (float(est.beta_1), float(est.beta_2)),
        "eps": float(est.epsilon),
        "eps_hat": True,
        "weight_decay": 0.0,
    }
    known = {f.name for f in fields(rule)}
    return rule(lr=0.0, **{name: value for name, value in options.items() if name in known})


class Solver:
    """An update rule with its learning rate, which changes between epochs.

    Parameters
    ----------
    est : estimator
        Its parameters are read once, here.

    Attributes
    ----------
    optimizer : Optimizer
        With moments and step counter.
    learning_rate : float
        Of the next epoch.
    """

    def __init__(self, est: Any) -> None:
        self.optimizer = make_optimizer(est)
        self.learning_rate = self.start = float(est.learning_rate_init)
        self.schedule = est.learning_rate if est.solver == "sgd" else "constant"
        self.power_t = est.power_t

    def iteration_ends(self, t: int) -> None:
        """After an epoch, `t` rows seen in all."""
        if self.schedule == "invscaling":
            self.learning_rate = self.start / (t + 1) ** self.power_t

    def trigger_stopping(self, message: str, verbose: Any) -> bool:
        """No progress for too long: whether to stop; "adaptive" lowers the learning rate first."""
        if self.schedule != "adaptive":
            note, stop = "Stopping.", True
        elif self.learning_rate <= 1e-6:
            note, stop = "Learning rate too small. Stopping.", True
        else:
            self.learning_rate /= 5.0
            note, stop = f"Setting learning rate to {self.learning_rate:f}", False
        if verbose:
            print(f"{message} {note}")
        return stop

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "optimizer": (type(self.optimizer), self.optimizer.state_dict())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rule, values = state.pop("optimizer")
        self.__dict__.update(state)
        self.optimizer = rule()
        self.optimizer.load_state_dict(values)


class Engine(Trainer):
    """A trainer whose epochs are driven from outside.

    Parameters
    ----------
    model : MLP
    loss : str or Huber
    optimizer : Optimizer
        Used itself, not a copy, so that its state lives on in the estimator.
    alpha, l1 : float
        Penalties, divided by the sum of a batch's weights.
    seed : int
        Of the dropout masks.
    """

    def __init__(
        self,
        model: MLP,
        loss: str | Huber,
        optimizer: Optimizer,
        alpha: float,
        l1: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(model, loss=loss, optimizer=optimizer, seed=seed)
        model.output = self.loss.link
        self.alpha, self.l1, self.optimizer = float(alpha), float(l1), optimizer
        self.penalties(optimizer, self.alpha, self.l1)
        self.scale = 1.0  # of the loss that is reported
        if self.loss.name not in ("absolute_error", "huber"):  # scikit-learn has losses summed over outputs
            self.objective = replace(self.objective, per_output=1.0)
        if self.loss.name == "squared_error":  # and reports the mean of this one, with the sum's gradient
            self.scale = 1.0 / model.layer_sizes[-1]
        self.session: Session | None = None
        self.evaluation: Evaluation | None = None
        self._key: tuple | None = None

    @staticmethod
    def penalties(optimizer: Optimizer, alpha: float, l1: float) -> None:
        """Switch the penalties of `optimizer` on; their values are in the step table."""
        decoupled = type(optimizer)().weight_decay > 0  # by default, as AdamW's
        optimizer.weight_decay, optimizer.l2, optimizer.l1 = (
            (alpha, 0.0, l1) if decoupled else (0.0, alpha, l1)
        )

    # ---- rows -----------------------------------------------
    def load_rows(
        self, X: Any, y: Any, w: np.ndarray | None, batch: int, keep: bool, constant: np.ndarray | None
    ) -> None:
        """Put training rows on the device and record the plans.

        Parameters
        ----------
        X, y, w : checked rows, as in `Data`
        batch : rows per step
        keep : bool
            Copy into buffers of this object, which the next call with rows of the same shape uses again.
        constant : array (n_rows,), optional
            A part of each row's loss that does not depend on the network.
        """
        self._ready()
        backend, dtype = self.model.backend, self.model.dtype
        self.constant = constant
        opt = self.optimizer
        kernel = opt.kernel()
        key = (
            X.shape,
            y.shape,
            w is None,
            batch,
            kernel.name,
            tuple(opt.scalars(kernel).values()),
            id(opt),
            self.alpha > 0,
        )
        if not keep or key != self._key or self.session is None:
            if not keep:
                data = self._resident(Rows(X, y, w))
            else:
                zeros = backend.zeros
                data = Data(
                    zeros(X.shape, dtype),
                    zeros(y.shape, y.dtype),
                    None if w is None else zeros(w.shape, dtype),
                    w,
                )
            self.batch = min(batch, X.shape[0])
            self.n_steps = -(-X.shape[0] // self.batch)
            #: per step: sum of its rows' losses, then |w|^2; then the validation rows' sums of loss, metric
            self._out = backend.zeros(2 * self.n_steps + 2, dtype)
            self.session = self._prepare(data, self.batch)
            sums = {"values": self.session.row_loss, "partial": self._out[: self.n_steps]}
            collect = Launch(SUM, sums, {"n": X.shape[0], "chunk": self.batch}, self.n_steps, self.batch)
            self._collect = backend.record([collect], self.session.feed.steps)
            self._key = key if keep else None
            starts = np.arange(self.n_steps) * self.batch
            self._starts, self._sizes = starts, np.minimum(self.batch, X.shape[0] - starts)
        if keep:
            data = self.session.data
            backend.copy(data.X, X)
            backend.copy(data.y, y)
            if w is not None:
                backend.copy(data.w, w)
            data.w_host = w

    def load_validation(self, X: Any, y: Any, w: np.ndarray | None) -> None:
        """Put validation rows on the device; `epoch` evaluates them from now on."""
        self.evaluation = Evaluation(
            self.model, self.objective, self._resident(Rows(X, y, w)), self._out[-2:]
        )

    def _update_ops(self) -> list[Op]:
        squares = penalty_ops(self.model, self._out[self.n_steps : -2]) if self.optimizer.l2 > 0 else []
        return [*squares, *super()._update_ops()]

    # ---- epochs -----------------------------------------------
    def run_epoch(self, order: np.ndarray, lr: float) -> tuple[float, dict[str, float]]:
        """One pass over the rows.

        Returns
        -------
        (loss, figures)
            scikit-learn's loss of the epoch, and for validation rows {"loss", "accuracy"} or {"loss", "rmse",
            "r2"}.
        """
        session, opt = self.session, self.optimizer
        assert session is not None
        session.feed.order[:] = order
        opt.lr = lr
        inv = self._fill(session)
        session.feed.send()
        session.run()
        self._collect.run()
        opt.t += self.n_steps
        if self.evaluation:
            self.evaluation.run()
        out = self.model.backend.to_numpy(self._out).astype(np.float64)
        losses = out[: self.n_steps] * self.scale + 0.5 * opt.l2 * out[self.n_steps : -2]
        if self.constant is not None:
            w = session.data.w_host
            weighted = self.constant if w is None else self.constant * w
            losses += np.add.reduceat(weighted[order], self._starts)
        loss = float(np.dot(losses * inv, self._sizes)) / session.data.n_rows
        return loss, self._figures(out[-2:]) if self.evaluation else {}

    def _fill(self, session: Session) -> np.ndarray:
        """Fill the step table, penalties divided by the batches' weights; 1 / weight, 0 for a weight of 0."""
        weights, w = session.batch_weights(), session.data.w_host
        inv = 1 / weights
        if w is not None:
            inv[np.add.reduceat(w[session.feed.order].astype(np.float64), self._starts) == 0] = 0
        opt = self.optimizer
        session.fill({**self._values(weights, self.n_steps), "l1": opt.l1 * inv, "l2": opt.l2 * inv})
        return inv

    def _figures(self, sums: np.ndarray) -> dict[str, float]:
        assert self.evaluation is not None
        figures = self.evaluation.figures(sums)
        figures["loss"] *= self.scale
        return figures


class Objective:
    """Loss and gradient over all rows as a function of one vector, for SciPy's minimisers.

    The vector has scikit-learn's order: weights layer by layer, then biases.

    Parameters
    ----------
    engine : Engine
    X, y, w, constant
        As in `Engine.load_rows`.
    """

    def __init__(
        self, engine: Engine, X: Any, y: Any, w: np.ndarray | None, constant: np.ndarray | None
    ) -> None:
        engine._ready()
        self.engine, model = engine, engine.model
        n = X.shape[0]
        self.session = engine._prepare(engine._resident(Rows(X, y, w)), n, update=False)
        self.weight = self.session.data.weight
        self.constant = 0.0
        if constant is not None:
            self.constant = float(np.sum(constant if w is None else constant * w, dtype=np.float64))
        places = [layer.matrix(np.arange(model.flat_size)) for layer in model.layers]
        self.index = np.concatenate([m[:-1].ravel() for m in places] + [m[-1] for m in places])
        self.n_weights = sum(layer.n_in * layer.n_out for layer in model.layers)
        self.flat = np.zeros(model.flat_size, model.dtype)
        self.session.feed.order[:] = np.arange(n)
        self.session.fill(engine._values(np.array([self.weight]), 1))
        self.session.feed.send()

    def start(self) -> np.ndarray:
        """The network's parameters as a vector."""
        return self.engine.model.backend.to_numpy(self.engine.model.flat)[self.index]

    def set(self, x: np.ndarray) -> None:
        """Put a vector into the network."""
        self.flat[self.index] = x
        self.engine.model.backend.copy(self.engine.model.flat, self.flat)

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """(loss, gradient) at `x`, in double precision."""
        engine, backend = self.engine, self.engine.model.backend
        self.set(x)
        self.session.run()
        self.session.sum_losses(engine._sums)
        grad = backend.to_numpy(engine._grads)[self.index].astype(np.float64)
        weights = x[: self.n_weights]
        grad[: self.n_weights] += engine.alpha / self.weight * weights
        total = engine.scale * float(backend.to_numpy(engine._sums)[0]) + self.constant
        return (total + 0.5 * engine.alpha * float(np.dot(weights, weights))) / self.weight, grad
