"""Which trainings share a plan: those that fit together, padded where that costs less than another plan."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpumlp.kernels.activations import ACTIVATIONS
from gpumlp.network import layout
from gpumlp.optimizers import stack_key
from gpumlp.plans import FORWARD_BYTES
from gpumlp.training.hooks import is_stepwise
from gpumlp.training.memory import fixed_bytes, row_bytes, usable_bytes
from gpumlp.training.shared import SharedRows
from gpumlp.training.stacked import Stacked

__all__ = ["PLAN", "may_be_padded", "plans_text", "stacked", "wave_text", "waves_of"]

#: multiply-adds that take about as long as starting the operations of a step: an estimate, for a GPU that
#: does 5e12 of them in a second and starts a step's 20 operations in 50 microseconds
PLAN = 1 << 28

Shape = tuple[int, ...]


def stacked(members: Sequence[Any]) -> list[Any]:
    """The jobs for `members`: on CUDA plans of several, else each by itself."""
    kinds: dict[tuple, list[Any]] = {}
    for member in members:
        kinds.setdefault(_kind(member) or ("alone", id(member)), []).append(member)
    jobs: list[Any] = []
    plans = itertools.count()
    rows: dict[tuple, SharedRows] = {}
    for kind, some in kinds.items():
        if kind[0] == "alone":
            jobs += some
            continue
        shared = rows.setdefault((id(some[0].train.X), id(some[0].train.y)), SharedRows())
        for waves in waves_of(some):
            plan = next(plans)
            if len(waves[0]) > 1:
                jobs += [Stacked(wave, shared, plan) for wave in waves]
            else:
                jobs += [member for wave in waves for member in wave]
    return jobs


def waves_of(members: Sequence[Any]) -> list[list[list[Any]]]:
    """For each plan that members of one kind need, those that fit on the device together."""
    return [_waves(some, sizes) for some, sizes in _by_shape(members)]


def plans_text(networks: int, jobs: Sequence[Any]) -> str:
    """How many networks there are and, where some share one, in how many plans."""
    shared = [job for job in jobs if isinstance(job, Stacked)]
    plans = len({job.plan for job in shared}) + len(jobs) - len(shared)
    return f"{networks} networks" + (f" in {plans} plan{'s' * (plans > 1)}" if shared else "")


def wave_text(jobs: Sequence[Any]) -> str:
    """Which wave is being trained, if not all networks of a plan fit on the device."""
    shared = [job for job in jobs if isinstance(job, Stacked)]
    waves = sum(job.waves for job in shared)
    if waves == len({job.plan for job in shared}):
        return ""
    done = sum(job.waves for job in shared if job.done)
    running = next((job.wave for job in shared if not job.done), 0)
    return f", wave {done + running} of {waves}: the device's memory holds no more at a time"


def _kind(member: Any) -> tuple | None:
    """Equal for members that may share a plan; None for one that trains alone, as all that are no fits of
    trainers do."""
    trainer = getattr(member, "trainer", None)
    if trainer is None:
        return None
    train, val = member.train, member.val
    model, optimizer = trainer.model, trainer.optimizer
    if model.backend.name != "cuda" or is_stepwise(trainer.callbacks):  # called in the middle of an epoch
        return None
    n, batch = train.n_rows, trainer.batch_size
    # a member with fewer rows fills up its last batch with a row that it does not have
    rows = ("some",) if len(train.others) else ("all", n)
    steps = (1,) if batch >= n else (batch, -(-n // batch))
    sizes = model.layer_sizes
    widths = () if may_be_padded(model) else tuple(sizes)
    held = None if val is None else (str(val.X.dtype), val.X.shape[1:], val.y.shape[1:])
    return (
        id(model.backend),
        str(model.dtype),
        trainer.precision,
        trainer.objective,
        (len(sizes), sizes[0], sizes[-1], *widths),
        tuple(model.activations),
        model.embedding.key() if model.embedding else None,
        stack_key(optimizer),
        (id(train.X), id(train.y)),
        rows,
        steps,
        held,
    )


def may_be_padded(model: Any) -> bool:
    """Whether units without parameters give 0."""
    zero = np.zeros(1)
    return all(float(ACTIVATIONS[name].f(zero)[0]) == 0 for name in model.activations)


def _by_shape(members: Sequence[Any]) -> list[tuple[list[Any], Shape]]:
    """Members for each plan, and the layer sizes that it has: from the largest, each shape goes where padding
    costs least, or makes a plan of its own if that costs less."""
    shapes: dict[Shape, list[Any]] = {}
    for member in members:
        shapes.setdefault(tuple(member.trainer.model.read_sizes), []).append(member)
    plans: list[tuple[list[Any], Shape]] = []
    for shape in sorted(shapes, key=_size, reverse=True):
        some, best, least = shapes[shape], None, float(PLAN)
        for number, (others, sizes) in enumerate(plans):
            both = _wider(shape, sizes)
            more = len(some) * (_size(both) - _size(shape)) + len(others) * (_size(both) - _size(sizes))
            cost = 3.0 * min(some[0].trainer.batch_size, some[0].train.n_rows) * more
            if cost < least:
                best, least = number, cost
        if best is None:
            plans.append((list(some), shape))
        else:
            others, sizes = plans[best]
            plans[best] = others + some, _wider(shape, sizes)
    return plans


def _wider(a: Shape, b: Shape) -> Shape:
    return tuple(map(max, a, b))


def _size(sizes: Shape) -> int:
    """Numbers in the flat buffer of such a network: multiply-adds for a row in each of three products."""
    return layout(sizes)[1]


def _waves(members: list[Any], sizes: Shape) -> list[list[Any]]:
    """Members that fit on the device together, beside the rows."""
    trainer, train = members[0].trainer, members[0].train
    backend, size = trainer.model.backend, trainer.model.dtype.itemsize
    budget = usable_bytes(backend)
    if budget is None:
        return [members]
    data = {(id(rows.X), id(rows.y)): rows for m in members for rows in (m.train, m.val) if rows is not None}
    budget -= sum(row_bytes(trainer.model, rows) * rows.X.shape[0] for rows in data.values())
    budget -= FORWARD_BYTES if members[0].val is not None else 0
    models = [m.trainer.model for m in members]
    embedded = max(model.flat_size - _size(tuple(model.read_sizes)) for model in models)
    inner = [max(widths) for widths in zip(*(m.widths[len(sizes) :] for m in models), strict=True)]
    network: Any = SimpleNamespace(
        widths=[*sizes, *inner],
        flat_size=_size(sizes) + embedded,
        dtype=models[0].dtype,
        members=None,
    )
    most = max(m.train.n_rows for m in members)
    held = max((m.val.n_rows for m in members if m.val is not None), default=0)
    weights = any(m.train.w is not None or m.train.n_rows < most for m in members)
    each = fixed_bytes(network, trainer.optimizer, min(trainer.batch_size, most), trainer.engine.precision)
    each += 2 * embedded * size  # its layers are copied, and their gradients
    each += most * (4 + size) + held * (4 + 2 * size) + weights * train.X.shape[0] * size
    count = -(-len(members) // max(1, budget // each))  # of waves
    step = -(-len(members) // count)
    return [members[start : start + step] for start in range(0, len(members), step)]
