"""What runs in Dask's workers: a rank of a training, and predictions."""

from __future__ import annotations

import copy
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import get_worker
from distributed.comm import get_address_host

from gpumlp.backends import cuda_problem
from gpumlp.backends.arrays import is_cuda
from gpumlp.distributed import Alone, RankError
from gpumlp.distributed.links import LinkCommunicator
from gpumlp.model import MLP
from gpumlp.optimizers import Optimizer, optimizer_class
from gpumlp.rows.arrays import check_range, read_array
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.job import agreed
from gpumlp.training.trainer import Trainer

__all__ = ["MIXED", "Plan", "Summary", "answer", "end_seat", "open_seat", "summary", "train_rank"]


@dataclass
class Plan:
    """What all ranks of a training do; see the parameters of `DaskMLPClassifier`."""

    layer_sizes: list[int]
    loss: Any
    activation: Any
    dropout: Any
    solver: str | Optimizer
    learning_rate: float
    l1: float
    l2: float
    batch_size: int
    epochs: int
    seed: int
    validation: float | None
    stop: EarlyStopping
    dtype: str
    device: str
    reproducible: bool
    timeout: float
    classes: np.ndarray | None


class Seat:
    """A rank's place in a worker, from before its task starts, so that it can be told of the end."""

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.communicator: LinkCommunicator | None = None
        self.reason: str | None = None

    def end(self, reason: str) -> None:
        """The training ends; from any thread."""
        self.reason = reason
        if self.communicator is not None:
            self.communicator.end(reason)

    def check(self, *_: Any) -> None:
        """RankError if the training has been ended; a callback."""
        if self.reason is not None:
            raise RankError(self.reason)


MIXED = "y has labels that are text and labels that are numbers; expected one kind"
#: by the token of a training and the address of a worker: some clusters have several in a process
_seats: dict[tuple[str, str], Seat] = {}


def open_seat(token: str, dask_worker: Any = None) -> tuple[str, int]:
    """Make a seat; where its rank listens."""
    address = dask_worker.address
    host = "127.0.0.1" if address.startswith("inproc") else get_address_host(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, 0), family=family, backlog=128)
    _seats[token, address] = Seat(server)
    return host, server.getsockname()[1]


def end_seat(token: str, reason: str, dask_worker: Any = None) -> None:
    """End what goes on in a seat, if there is one, and take it away."""
    seat = _seats.pop((token, dask_worker.address), None)
    if seat is not None:
        seat.end(reason)
        with suppress(OSError):
            seat.server.shutdown(socket.SHUT_RDWR)


# ---- rows -----------------------------------------------


@dataclass
class Summary:
    """What the client learns of a partition."""

    rows: int
    features: int
    outputs: int
    dtype: str
    weighted: bool
    labels: np.ndarray | None


def _host(x: Any) -> Any:
    return x.get() if is_cuda(x) else x


def _labels(y: Any) -> np.ndarray:
    """Labels (n,) on the host; text as it is."""
    y = np.asarray(_host(y))
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"y has the shape {y.shape}; expected (n_rows,), one label per row")
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise ValueError(f"y contains NaN ({int(np.isnan(y).sum())} times); expected labels")
    if y.dtype.kind == "O":
        for each in y:
            if not isinstance(each, (str, int, np.generic)):
                raise ValueError(f"y contains {each!r}; expected labels that are text or whole numbers")
        if len({isinstance(each, str) for each in y}) > 1:
            raise ValueError(MIXED)
    return y


def summary(number: int, part: tuple[Any, Any, Any], labels: bool) -> Summary:
    """Of a partition; with `labels`, which there are."""
    try:
        return _summary(*part, labels)
    except (TypeError, ValueError) as error:
        raise type(error)(f"partition {number}: {error}") from error


def _summary(X: Any, y: Any, w: Any, labels: bool) -> Summary:
    X = read_array("X", X)
    if X.ndim != 2:
        raise ValueError(f"X has the shape {X.shape}; expected (n_rows, n_features)")
    check_range("X", X, np.dtype(np.float64))
    if not labels:
        check_range("y", read_array("y", y), np.dtype(np.float64))
    outputs = y.shape[1] if y.ndim == 2 else 1
    found = np.unique(_labels(y)) if labels else None
    return Summary(len(X), X.shape[1], outputs, X.dtype.name, w is not None, found)


def _rows(parts: list[Any], plan: Plan) -> tuple[Any, Any, Any]:
    """(X, y, weights) of all partitions of this rank; labels as numbers of classes."""
    X = np.concatenate([_host(read_array("X", X)) for X, _, _ in parts]).astype(plan.dtype, copy=False)
    if plan.classes is None:
        y = np.concatenate([_host(read_array("y", y)).reshape(len(y), -1) for _, y, _ in parts])
    else:
        y = np.searchsorted(plan.classes, np.concatenate([_labels(y) for _, y, _ in parts]))
        y = y.astype(np.int32) if plan.layer_sizes[-1] > 1 else y.astype(plan.dtype).reshape(-1, 1)
    weights = [_host(read_array("sample_weight", w)).reshape(-1) for _, _, w in parts if w is not None]
    return X, y, np.concatenate(weights) if weights else None


# ---- training -----------------------------------------------


def train_rank(
    token: str,
    rank: int,
    names: list[str],
    addresses: list[tuple[str, int]],
    plan: Plan,
    parts: list[Any],
    starts: list[int],
) -> tuple[MLP, History] | None:
    """Train as one of the ranks, on `parts` whose first rows have the numbers `starts`; rank 0 returns the
    network, on the CPU, and what happened."""
    seat = _seats.get((token, get_worker().address))
    if seat is None:
        raise RankError("this worker has been started again since the training began, and its rows are lost")
    communicator: Any = Alone()
    try:
        if len(names) > 1:
            seat.communicator = communicator = LinkCommunicator(
                rank, names, rank, seat.server, addresses, token
            )
            seat.check()
            communicator.meet(plan.timeout)
        return _train(communicator, seat, plan, parts, starts)
    finally:
        _seats.pop((token, get_worker().address), None)
        if seat.communicator is not None:
            seat.communicator.close()
        seat.server.close()


def _train(
    communicator: Any, seat: Seat, plan: Plan, parts: list[Any], starts: list[int]
) -> tuple[MLP, History] | None:
    device = _own_device(communicator, plan.device)
    trainer = agreed(communicator, lambda: _trainer(communicator, seat, plan, device))
    X, y, w = agreed(communicator, lambda: _rows(parts, plan))
    spans = [np.arange(start, start + len(part[0])) for start, part in zip(starts, parts, strict=True)]
    # one rank has them in order
    how: Any = np.concatenate(spans) if communicator.size > 1 else "replicated"
    history = trainer.fit(
        X,
        y,
        sample_weight=w,
        epochs=plan.epochs,
        validation=plan.validation,
        early_stopping=plan.stop,
        progress=False,
        rows=how,
    )
    return (trainer.model.to("cpu"), history) if communicator.rank == 0 else None


def _trainer(communicator: Any, seat: Seat, plan: Plan, device: str) -> Trainer:
    model = MLP(
        plan.layer_sizes,
        plan.activation,
        dropout=plan.dropout,
        seed=plan.seed,
        dtype=plan.dtype,
        device=device,
    )
    rule = plan.solver
    if isinstance(rule, str):
        rule = optimizer_class(rule)(lr=plan.learning_rate)
    return Trainer(
        model,
        loss=plan.loss,
        optimizer=rule,
        batch_size=plan.batch_size,
        l1=plan.l1,
        l2=plan.l2,
        seed=plan.seed,
        callbacks=[seat.check],
        communicator=communicator,
        reproducible=plan.reproducible,
    )


def _own_device(communicator: Any, wanted: str) -> str:
    """The device of this rank: of workers on one machine that see the same CUDA devices, each takes its own;
    "auto" is CUDA if all ranks have one."""
    wanted = wanted.strip().lower()
    if wanted == "auto":
        wanted = os.environ.get("GPUMLP_DEVICE", "auto").strip().lower() or "auto"
    here = [socket.gethostname(), os.environ.get("CUDA_VISIBLE_DEVICES")]
    number = communicator.gather(here)[: communicator.rank].count(here)
    everywhere = all(communicator.gather(wanted != "auto" or cuda_problem(number) is None))
    if wanted == "auto":
        return f"cuda:{number}" if everywhere else "cpu"
    return f"cuda:{number}" if wanted in ("cuda", "gpu") else wanted


# ---- predictions -----------------------------------------------


def answer(X: Any, model: tuple[MLP, np.ndarray | None, bool], device: str) -> np.ndarray:
    """What a network, on `device`, says of rows: (network, labels of its classes, whether probabilities)."""
    network, classes, probabilities = model
    network = copy.deepcopy(network).to(device)  # several threads of a worker may do this at the same time
    X = read_array("X", X)
    if probabilities:
        return np.asarray(_host(network.predict_proba(X)))
    found = _host(network.predict(X))
    return found if classes is None else classes[found]
