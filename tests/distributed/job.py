"""What the ranks of the tests do: ``mpiexec -n N python job.py TIMEOUT FUNCTION [ARGUMENT ...]``."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import signal
import sys
import time
from typing import Any

import numpy as np

import gpumlp
import gpumlp.distributed

#: name -> settings of a training; what is left out is in `train`
CASES: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": "adam"},
    "dropout, clipping, weights": {"dropout": 0.3, "clip_norm": 0.3, "weights": True, "optimizer": "rmsprop"},
    "fewer rows than shards": {"n": 13, "batch_size": 5, "validation": None, "optimizer": "sgd"},
    "float64, stops": {
        "loss": "squared_error",
        "dtype": "float64",
        "early_stopping": True,
        "optimizer": "muon",
    },
    "own validation rows": {"validation": "own", "embedding": True, "optimizer": "adamw"},
}
#: only on CUDA
CUDA_CASES = {"float16": {"precision": "float16", "dropout": 0.2, "optimizer": "adam"}}


def rows_of(n: int, regression: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5)).astype(np.float32)
    y = X[:, :3] ** 2 + rng.normal(size=(n, 3)) if regression else (X[:, 0] > 0) + (X[:, 1] > 0.5)
    return X, np.asarray(y), rng.random(n)


def make(
    device: str, communicator: Any, dtype: str = "float32", dropout: float = 0.0, **settings: Any
) -> Any:
    embedded = {"embedding": gpumlp.Embedding("periodic", size=4)} if settings.pop("embedding", None) else {}
    model = gpumlp.MLP([5, 12, 8, 3], "tanh", dropout=dropout, device=device, dtype=dtype, **embedded)
    given = {"loss": "softmax_cross_entropy", "batch_size": 32, **settings}
    return gpumlp.Trainer(model, communicator=communicator, **given)


def train(device: str, communicator: Any, rows: str = "replicated", **case: Any) -> Any:
    """The trainer after a fit, a step and an evaluation, with all that has been told."""
    fit = {name: case.pop(name, None) for name in ("weights", "early_stopping")}
    n, validation = case.pop("n", 203), case.pop("validation", 0.2)
    X, y, w = rows_of(n, case.get("loss") == "squared_error")
    trainer = make(device, communicator, **case)
    own = held = slice(None)
    if (
        rows == "sharded"
    ):  # of several ranks the first one has no rows, and its validation rows are the last one's
        cuts = [0, 0, *np.sort(np.random.default_rng(1).integers(0, n, max(0, communicator.size - 2))), n]
        own = slice(*(cuts[1:] if communicator.size == 1 else cuts)[communicator.rank :][:2])
        own = slice(0, n) if communicator.size == 1 else own
        held = slice(0, 40) if communicator.rank == communicator.size - 1 else slice(0, 0)
    history = trainer.fit(
        X[own],
        y[own],
        epochs=3,
        validation=(X[:40][held], y[:40][held]) if validation == "own" else validation,
        sample_weight=w[own] if fit["weights"] else None,
        early_stopping=fit["early_stopping"],
        **({"rows": rows} if communicator is not None else {}),
    )
    trainer.step(X[:50], y[:50])
    trainer.told = [
        {name: values for name, values in history.metrics.items() if name != "seconds"},
        trainer.evaluate(X, y),
        trainer.loss_and_grads(X[:20], y[:20])[0],
    ]
    return trainer


def digest(trainer: Any) -> str:
    """Of parameters, the optimiser's state, and the figures."""
    read = trainer.model.backend.to_numpy
    found = hashlib.md5(read(trainer.model.flat).tobytes())
    for name, array in sorted(trainer.optimizer.state[0].items()):
        if name != "_shape":
            found.update(read(array).tobytes())
    found.update(repr(getattr(trainer, "told", None)).encode())
    return found.hexdigest()


def tell(communicator: Any, found: Any) -> None:
    """Print it, if all ranks have the same."""
    answers = communicator.gather(json.dumps(found))
    assert len(set(answers)) == 1, answers
    if communicator.rank == 0:
        print(answers[0])


def bits(devices: str, *names: str) -> None:
    """Digests by device, case and rows."""
    communicator = gpumlp.distributed.get_communicator()
    found = {}
    for device in devices.split(","):
        for name in names or CASES:
            for rows in ("replicated", "sharded"):
                found[f"{device}: {name}"] = found.get(f"{device}: {name}", set()) | {
                    digest(train(device, communicator, rows, **{**CASES, **CUDA_CASES}[name]))
                }
    for name, digests in found.items():
        assert len(digests) == 1, f"{name}: sharded rows gave other bits"
    tell(communicator, {name: min(digests) for name, digests in found.items()})


def streams(device: str) -> None:
    """Digests of trainings on rows that come in chunks: from the host, and from a source."""
    communicator = gpumlp.distributed.get_communicator()
    X, y, w = rows_of(203, False)
    found = []
    for source in (False, True):
        trainer = make(device, communicator, optimizer="adam", batch_size=16, dropout=0.2)
        if source:
            held = gpumlp.rows.ArrayRows(X, y, w.astype(np.float32), rows_per_group=50, window=64)
            history = trainer.fit(held, epochs=2, validation=(X[:30], y[:30]))
        else:
            history = trainer.fit(X, y, epochs=2, sample_weight=w, streaming=True, validation=0.1)
        trainer.told = [
            history.loss,
            history.val_loss,
            trainer.evaluate(held if source else X, *[y] * (not source)),
        ]
        found.append(digest(trainer))
    tell(communicator, found)


def shared_source(device: str) -> None:
    """Digests of trainings on a source of 11 uneven groups, each of which is read by one rank; NaN in the
    last one is told to all."""
    from gpumlp.rows import ArrayRows

    seen: list[int] = []

    class Watched(ArrayRows):
        def read(self, group: int) -> Any:
            seen.append(group)
            return super().read(group)

    communicator = gpumlp.distributed.get_communicator()
    X, y, w = rows_of(203, False)
    found = []
    for weights in (None, w.astype(np.float32)):
        held = Watched(X, y, weights, rows_per_group=20, window=64)
        trainer = make(device, communicator, optimizer="adam", batch_size=16, dropout=0.2)
        history = trainer.fit(held, epochs=2, validation=0.1, rows="sharded")
        trainer.told = [history.loss, history.val_loss, trainer.evaluate(held, rows="sharded")]
        assert history.val_loss[-1] < history.val_loss[0]
        found.append(digest(trainer))
    others = communicator.gather(sorted({group for group in seen if group}))  # all look at the first one
    assert sorted(group for each in others for group in each) == list(range(1, 11)), others
    alone = make(device, None, optimizer="sgd").evaluate(X, y, w)
    told = make(device, communicator, optimizer="sgd").evaluate(held, rows="sharded")
    np.testing.assert_allclose(list(told.values()), list(alone.values()), rtol=1e-5)
    X[-1] = np.nan
    try:
        make(device, communicator, optimizer="sgd").fit(held, epochs=1, rows="sharded")
    except (ValueError, gpumlp.distributed.RankError) as error:
        assert "ArrayRows, rows 200 to 202, its rows 0 to 2: X contains nan" in str(error)
        tell(communicator, found)


def tree(size: str) -> None:
    """A sum has the bits of a balanced tree, whatever MPI itself would do with so large an array."""
    communicator = gpumlp.distributed.get_communicator()
    parts = [np.random.default_rng(rank).normal(size=int(size)) for rank in range(communicator.size)]
    buffer, scratch = parts[communicator.rank].copy(), np.empty(int(size))
    assert communicator.doubles
    communicator.add_doubling(buffer, scratch)
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    np.testing.assert_array_equal(buffer, parts[0])


def near(devices: str) -> None:
    """Training on ranks is training: the same numbers as of one process without a communicator."""
    communicator = gpumlp.distributed.get_communicator()
    for device in devices.split(","):
        for name, case in CASES.items():
            for reproducible in (True, False):
                exact = {**case, "dtype": "float64"}
                ours = train(device, communicator, reproducible=reproducible, **exact)
                alone = train(device, None, **exact)
                read = alone.model.backend.to_numpy
                where = f"{device}, {name}, reproducible={reproducible}"
                np.testing.assert_allclose(
                    read(ours.model.flat), read(alone.model.flat), rtol=1e-9, atol=1e-12, err_msg=where
                )
                for a, b in zip(ours.told[:2], alone.told[:2], strict=True):
                    assert list(a) == list(b), where
                    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-9, err_msg=where)


def resume(folder: str) -> None:
    """The digest after 4 epochs; they are the last two if there is a file, else it is written after two, by
    the rank that has its name."""
    communicator = gpumlp.distributed.get_communicator()
    X, y, _ = rows_of(150, False)
    path = os.path.join(folder, "rank0.npz")
    there = communicator.gather(os.path.exists(path))[0]
    if there:
        trainer = gpumlp.Trainer.load(path, device="cpu", communicator=communicator)
    else:
        trainer = make("cpu", communicator, optimizer="adam", dropout=0.2)
        trainer.callbacks = [
            lambda t, h: (
                t.save(os.path.join(folder, f"rank{communicator.rank}.npz")) if t.epoch == 2 else None
            )
        ]
    trainer.fit(X, y, epochs=2 if there else 4)
    tell(communicator, digest(trainer))


def end(how: str) -> None:
    """Rank 1 ends while the others wait for it; without arrays, so under torchrun as well."""
    if how == "raises early" and gpumlp.distributed.rank() == 1:
        raise RuntimeError("the disk is full")
    communicator = gpumlp.distributed.get_communicator()
    communicator.barrier()
    if communicator.rank == 1:
        if how == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "leaves":
            sys.exit(3)
        raise RuntimeError("the disk is full")
    communicator.barrier()


def leave(how: str) -> None:
    """Rank 1 leaves, before there is a communicator, or while the others go on to train; or all have done the
    same, and rank 0 has more to do."""
    if how == "early" and gpumlp.distributed.rank() == 1:
        sys.exit(3)
    communicator = gpumlp.distributed.get_communicator()
    X, y, _ = rows_of(40, False)
    trainer = make("cpu", communicator, optimizer="sgd")
    trainer.fit(X, y, epochs=2)
    if how == "in time":
        if communicator.rank == 0:
            time.sleep(0.5)
            trainer.model.predict(X)
            print(json.dumps("saved"))
        return
    if communicator.rank == 1:
        return
    trainer.step(X, y)


def many(device: str) -> None:
    """Digests of networks that are spread over the ranks; one of them diverges."""
    communicator = gpumlp.distributed.get_communicator()
    X, y, _ = rows_of(100, False)
    rates = (0.1, 0.01, 1e39, 0.02, 0.001)
    trainers = [make(device, None, optimizer=gpumlp.SGD(lr=lr, momentum=0.9)) for lr in rates]
    histories = gpumlp.fit_many(
        trainers, X, y, epochs=[2, 3, 4, 5, 6], validation=0.2, communicator=communicator
    )
    assert [bool(history.error) for history in histories] == [False, False, True, False, False]
    assert [trainer.epoch for trainer in trainers if not trainer.history.error] == [2, 3, 5, 6]
    for trainer, history in zip(trainers, histories, strict=True):
        assert trainer.history is history
        trainer.told = [len(history), trainer.optimizer.t, str(history.error)]
        trainer.told += [history.metrics.get(name) for name in ("loss", "val_loss")]
        trainer.optimizer.init_state([trainer.model.flat], trainer.model.backend)
    tell(communicator, [digest(trainer) for trainer in trainers])


def fail(how: str, folder: str) -> None:
    """Rank 1 fails while the others go on for ever."""
    communicator = gpumlp.distributed.get_communicator()
    rank = communicator.rank
    X, y, _ = rows_of(100, False)

    def callback(trainer: Any, history: Any) -> None:
        open(os.path.join(folder, f"begun{rank}"), "w").close()  # the test waits for it
        if rank == 1 and trainer.epoch == 3:
            if how == "raises in a callback":
                raise KeyError("something is missing")
            if how == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "changes a setting":
                trainer.batch_size = 17

    odd = rank == 1
    trainer = make("cpu", communicator, optimizer="sgd", seed=1 if odd and how == "other settings" else 0)
    trainer.callbacks = [callback]
    if how == "raises alone" and odd:
        time.sleep(0.1)
        raise RuntimeError("the disk is full")
    if how == "other shapes" and odd:
        X, y = X[:90], y[:90]
    if how == "bad rows" and odd:
        X = np.where(np.arange(500).reshape(100, 5) == 77, np.nan, X)
    trainer.fit(X, y, epochs=10**9)


def count(device: str) -> None:
    """One launch of a graph per step, with NCCL inside."""
    import simgpu

    communicator = gpumlp.distributed.get_communicator()
    trainer = make(device, communicator, optimizer="adam", batch_size=16)
    X, y, _ = rows_of(160, False)
    counts = []
    for n in (80, 160):  # 5 and 10 steps
        trainer.fit(X[:n], y[:n], epochs=2)
        with simgpu.watch() as counted:
            trainer.fit(X[:n], y[:n], epochs=1)
        counts.append(counted)
    few, many = counts
    steps = many["graph_launches"] - few["graph_launches"]
    outside = [sum(c["nccl_calls"].values()) for c in counts]
    inside = [sum(c["graph_nccl_calls"].values()) for c in counts]
    tell(communicator, [steps, outside, inside[1] - inside[0]])


if __name__ == "__main__":
    faulthandler.dump_traceback_later(float(sys.argv[1]), exit=True)
    globals()[sys.argv[2]](*sys.argv[3:])
