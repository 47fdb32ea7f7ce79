"""What a `Trainer` keeps on the model's device: buffers, rows, recorded plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp.backends.base import Op, on_device
from gpumlp.model.mlp import MLP
from gpumlp.optimizers import Optimizer
from gpumlp.plans.operations import Workspace, forward_bytes, forward_rows, optimizer_ops
from gpumlp.plans.precision import Precision
from gpumlp.rows.checked import Rows, dropout_key, is_cuda, resident_dtype
from gpumlp.training.epochs import Data, Evaluation, Objective, Session, step_table
from gpumlp.training.streamed import StreamEvaluation, StreamSession, fixed_bytes, plan_memory, row_bytes

__all__ = ["BUFFERS", "TrainerBase"]

BUFFERS = ("_backend", "_sums", "_precision", "_grads", "_staged")  # on the device, or of its plans


class TrainerBase:
    """See `Trainer`, which sets these attributes and drives the plans."""

    model: MLP
    optimizer: Optimizer
    objective: Objective
    schedule: Any
    batch_size: int
    clip_norm: float | None
    seed: int
    precision: str
    _backend: Any
    _scaler: np.ndarray

    # ---- buffers -----------------------------------------------
    def _ready(self) -> None:
        """Buffers on the model's device: made at first, and again after the model has moved."""
        model, backend = self.model, self.model.backend
        if self._backend is not backend:
            self._backend = None  # until all of it is there
            #: sums of the training rows' losses, the validation rows' losses and their metric; state of the
            #: loss scaling: read in one copy
            self._sums = backend.zeros(3 + 4, model.dtype)
            self._precision = Precision(model, self.precision, self._sums[3:])
            scaler = self.__dict__.pop("_scaler", None)  # of a pickled trainer
            if scaler is not None:
                backend.copy(self._precision.scaler, scaler)
            self._grads = backend.zeros(model.flat_size, model.dtype)
            self._staged: tuple[tuple, Session] | None = None
            self._backend = backend

    def _resident(self, rows: Rows) -> Data:
        backend, model, w = self.model.backend, self.model, rows.w
        X = backend.asarray(rows.X, resident_dtype(rows.X, backend, model.dtype))
        return Data(X, backend.asarray(rows.y), None if w is None else backend.asarray(w), w, rows.index)

    def _chunk(self, rows: Rows, batch: int, streaming: bool | None, evaluated: int = 0) -> int | None:
        """Rows per chunk if `rows`, all that its arrays hold, are to be streamed for training."""
        if is_cuda(rows.X):
            return None
        fixed = fixed_bytes(self.model, self.optimizer, batch, self._precision, evaluated)
        n, per_row = rows.X.shape[0], row_bytes(self.model, rows)
        return plan_memory(self.model, fixed, batch, n, per_row, streaming, "training")

    @on_device
    def _evaluation(self, rows: Rows) -> Evaluation | StreamEvaluation:
        model, chunk = self.model, None
        if not is_cuda(rows.X):
            batch, n = min(forward_rows(model), rows.n_rows), rows.X.shape[0]
            fixed = forward_bytes(model, batch)
            chunk = plan_memory(model, fixed, batch, n, row_bytes(model, rows), None, "evaluation")
        if chunk is not None:
            return StreamEvaluation(self.model, self.objective, rows, chunk, self._sums[1:3])
        return Evaluation(self.model, self.objective, self._resident(rows), self._sums[1:3])

    def _plans(
        self, train: Rows, val: Rows | None, streaming: bool | None
    ) -> tuple[Session | StreamSession, Evaluation | StreamEvaluation | None]:
        """What trains on `train` and evaluates `val`; parts of the same rows are on the device once."""
        batch = min(self.batch_size, train.n_rows)
        shared = val is not None and val.X is train.X and val.y is train.y and val.w is train.w
        if not shared:
            evaluation = self._evaluation(val) if val else None
            return self._train_session(train, batch, self._chunk(train, batch, streaming)), evaluation
        assert val is not None
        chunk = self._chunk(train, batch, streaming, val.n_rows)
        if chunk is not None:  # in arrays of their own, validation rows may fit on the device
            evaluation = self._evaluation(val.alone())
            return self._train_session(train, batch, self._chunk(train, batch, True)), evaluation
        session = self._train_session(train, batch, None)
        assert isinstance(session, Session)
        data = replace(session.data, index=val.index)
        return session, Evaluation(self.model, self.objective, data, self._sums[1:3])

    def _train_session(self, rows: Rows, batch: int, chunk: int | None) -> Session | StreamSession:
        if chunk is not None:
            return StreamSession(self.model, rows, batch, chunk, self._prepare)
        return self._prepare(self._resident(rows), batch)

    @on_device
    def _prepare(
        self, data: Data, batch: int, update: bool = True, space: Workspace | None = None
    ) -> Session:
        """Plans for `data` on the model's device; without `update`, up to the gradient."""
        model, backend, opt = self.model, self.model.backend, self.optimizer
        opt.init_state([model.flat], backend)
        opt.move_state(backend)
        after = self._update_ops() if update else []
        columns = opt.kernel(clip=self.clip_norm is not None).stepped
        batch = min(batch, data.n_rows)
        return Session(
            *(model, self.objective, data, batch, self._grads, dropout_key(self.seed), columns, after),
            precision=self._precision,
            space=space,
        )

    def _update_ops(self) -> list[Op]:
        """What follows the gradient in a step."""
        return optimizer_ops(self.model, self._grads, self.optimizer, self.clip_norm, self._precision)

    def _buffers(self) -> list[int]:
        """Identities of what an update writes; they change when a state is loaded or reset."""
        return [id(self.model.flat), *(id(a) for entry in self.optimizer.state for a in entry.values())]

    def _run_staged(self, rows: Rows, update: bool) -> Session:
        """One step on one batch, copied to buffers of its own; the last plan is kept for batches of equal
        size."""
        self._ready()
        X, y, w = rows.X, rows.y, rows.w
        model, backend, opt = self.model, self.model.backend, self.optimizer
        kernel = opt.kernel(clip=self.clip_norm is not None)
        key = (X.shape[0], w is not None, update, kernel.name, self.clip_norm, *opt.scalars(kernel).values())
        if self._staged is None or self._staged[0] != (*key, *self._buffers()):
            zeros = backend.zeros
            data = Data(zeros(X.shape, model.dtype), zeros(y.shape, y.dtype), None, None)
            data.w = zeros(w.shape, model.dtype) if w is not None else None
            session = self._prepare(data, X.shape[0], update)
            session.feed.order[:] = np.arange(X.shape[0])
            self._staged = (*key, *self._buffers()), session
        session = self._staged[1]
        backend.copy(session.data.X, X)
        backend.copy(session.data.y, y)
        if w is not None:
            backend.copy(session.data.w, w)
        session.data.w_host = w
        self._table(session, opt.t + 1)
        session.feed.send()
        self._precision.refresh()
        session.run()
        return session

    def loss_scale_state(self) -> np.ndarray | None:
        """State of the loss scaling, on the host; None but for float16."""
        if "_scaler" in self.__dict__:  # not taken over yet
            return self._scaler
        if self._backend is not self.model.backend or self._precision.scaler is None:
            return None
        return self._backend.to_numpy(self._precision.scaler)

    def restore_loss_scale(self, state: np.ndarray) -> None:
        """Go on with what `loss_scale_state` gave."""
        self._scaler, self._backend = state, None  # `_ready` takes it over

    def _table(self, session: Session, total: int) -> float:
        """Fill the step table for the coming steps, `feed.order` given; the last one's learning rate."""
        table = self._values(session.batch_weights(), total)
        session.fill(table)
        return float(table["lr"][-1])

    def _values(self, batch_weights: np.ndarray, total: int) -> dict[str, np.ndarray]:
        return step_table(self.optimizer, self.schedule, batch_weights, total)
