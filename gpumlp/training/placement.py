"""Where rows go: on the device if they fit beside the network, else streamed; and the epochs over them."""

from __future__ import annotations

from dataclasses import replace

from gpumlp.backends.arrays import is_cuda
from gpumlp.plans import forward_bytes, forward_rows
from gpumlp.rows import Rows, SourceRows
from gpumlp.training.engine import Engine
from gpumlp.training.epochs import Epochs, ResidentEpochs
from gpumlp.training.evaluation import Evaluation, ResidentEvaluation
from gpumlp.training.memory import fixed_bytes, plan_memory, row_bytes
from gpumlp.training.sourced import SourceEpochs, SourceEvaluation
from gpumlp.training.spread import SpreadEpochs, SpreadRows, spread_evaluation
from gpumlp.training.streamed import StreamedEpochs, StreamedEvaluation

__all__ = ["place", "place_evaluation"]


def place(
    engine: Engine,
    train: Rows | SourceRows,
    val: Rows | SourceRows | None,
    batch: int,
    streaming: bool | None,
) -> tuple[Epochs, Evaluation | None]:
    """Epochs over `train`, and the evaluation of `val`; arrays that both share are sent only once.

    Parameters
    ----------
    engine : Engine
    train, val : Rows or SourceRows
    batch : int
        Rows per step.
    streaming : bool or None
        Whether to stream `train`; None: if it does not fit.
    """
    batch = min(batch, train.n_rows)
    if isinstance(train, SpreadRows):
        return SpreadEpochs(engine, train, batch), place_evaluation(engine, val) if val else None
    if isinstance(train, SourceRows):
        return SourceEpochs(engine, train, batch), place_evaluation(engine, val) if val else None
    if val is None or isinstance(val, SourceRows) or not val.shares_arrays(train):
        evaluation = place_evaluation(engine, val) if val else None
        return _epochs(engine, train, batch, _chunk(engine, train, batch, streaming)), evaluation
    if _chunk(engine, train, batch, streaming, val.n_rows) is not None:
        # in arrays of their own, validation rows may fit on the device
        evaluation = place_evaluation(engine, val.alone())
        return _epochs(engine, train, batch, _chunk(engine, train, batch, True)), evaluation
    network = engine.network
    resident = train.on(engine.backend, network.dtype)
    held_out = replace(resident, index=val.index)
    evaluation = ResidentEvaluation(network, engine.objective, held_out, engine.sums[1:3], ranks=engine.ranks)
    return ResidentEpochs(engine, resident, batch), evaluation


def place_evaluation(engine: Engine, rows: Rows | SourceRows) -> Evaluation:
    """The evaluation of `rows`, which leaves its two sums in `engine.sums[1:3]`."""
    network, chunk, sums = engine.network, None, engine.sums[1:3]
    if isinstance(rows, SourceRows):
        return SourceEvaluation(network, engine.objective, rows, sums)
    if isinstance(rows, SpreadRows):
        return spread_evaluation(engine, rows, sums)
    if not is_cuda(rows.X):
        batch, n = min(forward_rows(network), rows.n_rows), rows.X.shape[0]
        fixed = forward_bytes(network, batch)
        per_row = row_bytes(network, rows)
        chunk = _agreed(engine, plan_memory(network, fixed, batch, n, per_row, None, "evaluation"))
    if chunk is not None:
        return StreamedEvaluation(network, engine.objective, rows, chunk, sums)
    resident = rows.on(engine.backend, network.dtype)
    return ResidentEvaluation(network, engine.objective, resident, sums, ranks=engine.ranks)


def _epochs(engine: Engine, rows: Rows, batch: int, chunk: int | None) -> Epochs:
    if chunk is not None:
        return StreamedEpochs(engine, rows, batch, chunk)
    return ResidentEpochs(engine, rows.on(engine.backend, engine.network.dtype), batch)


def _agreed(engine: Engine, chunk: int | None) -> int | None:
    """The smallest `chunk` of all ranks, whose devices may have unequal memory; None if all have none."""
    if engine.ranks is None:
        return chunk
    found = [each for each in engine.ranks.communicator.gather(chunk) if each is not None]
    return min(found, default=None)


def _chunk(engine: Engine, rows: Rows, batch: int, streaming: bool | None, evaluated: int = 0) -> int | None:
    """Rows per chunk if `rows` (all that its arrays hold) are to be streamed for training, else None."""
    if is_cuda(rows.X):
        return None
    network = engine.network
    fixed = fixed_bytes(network, engine.optimizer, batch, engine.precision, evaluated)
    n, per_row = rows.X.shape[0], row_bytes(network, rows)
    chunk = plan_memory(network, fixed, batch, n, per_row, streaming, "training")
    return _agreed(engine, chunk)
