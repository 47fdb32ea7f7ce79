"""`update` with options: clipped, scaled and masked as PyTorch does it, on every executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from rules import OPTIONS, make
from test_update import NAMES, values
from tolerances import close

import gpumlp
from gpumlp.schedules import Cosine, Exponential

SHAPES = [(7, 3), (3,), (3, 5), (5,), (0, 2), ()]
DECAY = [len(shape) == 2 for shape in SHAPES]


def gradients(step: int, dtype: Any, scale: float = 1.0) -> list[np.ndarray]:
    return [scale * values(shape, dtype, 10 * step + n) for n, shape in enumerate(SHAPES)]


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("rule", [name for name in NAMES if name != "muon"])
def test_formula(on: Any, dtype: Any, rule: str) -> None:
    """Clipped, scaled and masked, a step skipped in the middle, against the textbook's formulas."""
    optimizer = make(rule, OPTIONS[rule][-1], l2=0.2, weight_decay=0.1)
    params = [on.asarray(values(shape, dtype, n)) for n, shape in enumerate(SHAPES)]
    expected = [on.to_numpy(p).astype(float) for p in params]
    memories: list[dict] = [{} for _ in SHAPES]
    for step in range(4):
        grads = gradients(step, dtype, 64.0)
        if step == 2:
            grads[2][1, 1] = np.nan if dtype == "float32" else np.inf
        given = [on.asarray(g.copy()) for g in grads]
        optimizer.update(params, given, clip_norm=0.5, scale=64.0, decay=DECAY, zero=True)
        assert all((on.to_numpy(g) == 0).all() for g in given)
        if step == 2:
            continue
        norm = np.sqrt(sum(np.square(g.astype(float)).sum() for g in grads)) / 64
        for n, g in enumerate(grads):
            clip = min(1, 0.5 / norm) / 64
            t = step + 1 - (step > 2)
            expected[n] = oracles.step(optimizer, expected[n], g, memories[n], t, decay=DECAY[n], clip=clip)
    assert optimizer.t == 3
    for p, q in zip(params, expected, strict=True):
        close(on.to_numpy(p), q, "optimizer", scale=4)


def test_muon_clipped_and_masked(on: Any) -> None:
    rule = gpumlp.Muon(lr=0.05, l2=0.1)
    params, copies = ([on.asarray(values(s, "f8", n)) for n, s in enumerate(SHAPES)] for _ in range(2))
    plain, bare = gpumlp.Muon(lr=0.05, l2=0.1), gpumlp.Muon(lr=0.05, weight_decay=0.0)
    for step in range(3):
        grads = gradients(step, "f8")
        norm = np.sqrt(sum(np.square(g).sum() for g in grads))
        clipped = [on.asarray(g * min(1, 0.5 / norm)) for g in grads]
        for one, decay in ((plain, True), (bare, False)):
            mine = [n for n, own in enumerate(DECAY) if own is decay]
            one.update([copies[n] for n in mine], [clipped[n] for n in mine])
        given = [on.asarray(g) for g in grads]
        rule.update(params, given, clip_norm=0.5, decay=DECAY, zero=True)
        assert all((on.to_numpy(g) == 0).all() for g in given)
    for p, q in zip(params, copies, strict=True):
        close(on.to_numpy(p), on.to_numpy(q), "optimizer")
    if on.name == "cuda":
        with pytest.raises(ValueError, match=r"Muon: .*neither scale nor capturable"):
            rule.update(params, given, scale=2.0)
    else:
        given[0][...] = np.nan
        rule.update(params, given, scale=2.0)
        assert rule.t == 3


def test_clipping_groups_and_schedule_are_pytorchs(on: Any) -> None:
    """clip_grad_norm_, a group without decay, LambdaLR; PyTorch adds 1e-6 to the norm, which is undone."""
    torch = pytest.importorskip("torch")
    start = [values(shape, "f8", n) for n, shape in enumerate(SHAPES)]
    params, ours = [on.asarray(p) for p in start], gpumlp.AdamW(lr=0.01, eps=1e-8, weight_decay=0.3)
    theirs = [torch.tensor(p, requires_grad=True) for p in start]
    groups = [
        {"params": [p for p, own in zip(theirs, DECAY, strict=True) if own], "weight_decay": 0.3},
        {"params": [p for p, own in zip(theirs, DECAY, strict=True) if not own], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.98**t)
    for step in range(100):
        grads = gradients(step, "f8", 1 + step % 3)
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        norm = float(torch.nn.utils.get_total_norm([p.grad for p in theirs]))
        torch.nn.utils.clip_grad_norm_(theirs, 7.0 * (norm + 1e-6) / norm)
        optimizer.step()
        schedule.step()
        given = [on.asarray(g) for g in grads]
        ours.update(params, given, clip_norm=7.0, decay=DECAY, lr=Exponential(0.98))
    for p, q in zip(params, theirs, strict=True):
        close(on.to_numpy(p), q.detach().numpy(), "100 steps")


def test_scaling_is_gradscalers(on: Any) -> None:
    """Divided by the scale, left out where a gradient is not finite; the scale is PyTorch's own tensor."""
    torch = pytest.importorskip("torch")
    start = [values(shape, "f8", n) for n, shape in enumerate(SHAPES)]
    params, ours = [on.asarray(p) for p in start], gpumlp.Adam(lr=0.01, eps=1e-8)
    theirs = [torch.tensor(p, requires_grad=True) for p in start]
    optimizer = torch.optim.Adam(theirs, lr=0.01, eps=1e-8)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)
    skipped = 0
    for step in range(40):
        factor = scaler.get_scale()
        scaler.scale(torch.ones(()))  # makes the tensor of the scale
        grads = [g * factor for g in gradients(step, "f8")]
        if step % 7 == 3:
            grads[2][0, 1], skipped = np.inf if step % 2 else np.nan, skipped + 1
        for p, g in zip(theirs, grads, strict=True):
            p.grad = torch.tensor(g)
        ours.update(params, [on.asarray(g) for g in grads], scale=on.asarray(np.array([factor])))
        scaler.step(optimizer)
        scaler.update()
    assert ours.t == 40 - skipped
    for p, q in zip(params, theirs, strict=True):
        close(on.to_numpy(p), q.detach().numpy(), "100 steps")


def test_large_finite_gradients_are_not_skipped(on: Any) -> None:
    """Their squares are infinite in float32."""
    p, g = on.asarray(np.zeros(3, "f4")), on.asarray(np.array([3e30, 1, 2], "f4"))
    opt = gpumlp.SGD(lr=1.0)
    opt.update(p, g, scale=1e30)
    close(on.to_numpy(p), [-3, -1e-30, -2e-30], "elementwise")
    assert opt.t == 1


def test_clipping_alone_shows_what_is_not_finite(on: Any) -> None:
    """As in PyTorch and in a `Trainer`: without `scale` nobody expects steps to be left out."""
    p, opt = on.asarray(np.zeros(3)), gpumlp.SGD(lr=1.0)
    opt.update(p, on.asarray(np.array([1, np.nan, 2])), clip_norm=1.0)
    assert np.isnan(on.to_numpy(p)).all() and opt.t == 1


def test_learning_rates(on: Any) -> None:
    """A number is for one step; a schedule's factor is that of the steps done."""
    p, g, opt = on.asarray(np.zeros(1)), on.asarray(np.ones(1)), gpumlp.SGD(lr=0.1)
    opt.update(p, g, lr=1.0)
    opt.update(p, g)
    opt.update(p, g, lr=lambda t, total: 10.0 * t)  # t = 2
    opt.update(p, g, lr=Cosine(steps=6))  # half way
    close(on.to_numpy(p), [-1.0 - 0.1 - 2.0 - 0.05], "elementwise")
    assert opt.lr == 0.1


@pytest.mark.memory
def test_layouts_and_shared_memory(on: Any, dtype: Any) -> None:
    """Strided, reversed, unaligned, the same array twice, a gradient in a parameter's memory."""
    base = values((8, 10), dtype, 1)
    results = []
    for direct in (True, False):
        buffer = on.asarray(base.copy())
        line = on.asarray(base.reshape(-1).copy())
        params = [buffer[::2, 1::3], buffer[1::2].T, line[1:9], line[1:9], line[20:30]]
        grads = [on.asarray(values(p.shape, dtype, n)) for n, p in enumerate(params)]
        grads[4] = line[20:30] if direct else line[20:30].copy()
        opt = gpumlp.Adam(lr=0.1, l2=0.1)
        for _ in range(2):
            if direct:
                opt.update(params, grads, clip_norm=2.0, decay=[True, False, True, True, False])
            else:
                norm = np.sqrt(sum(float((on.to_numpy(g).astype(float) ** 2).sum()) for g in grads))
                clipped = [g * np.dtype(dtype).type(min(1, 2.0 / norm)) for g in grads]
                before = [on.asarray(np.ascontiguousarray(on.to_numpy(g))) for g in clipped]
                opt.update(params, before, decay=[True, False, True, True, False])
                grads[4] = line[20:30].copy()
        results.append((on.to_numpy(buffer), on.to_numpy(line)))
    for a, b in zip(*results, strict=True):
        close(a, b, "optimizer", scale=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm=0.0; expected None or a finite number > 0"),
        ({"clip_norm": np.nan}, "clip_norm=nan"),
        ({"scale": -1.0}, "scale=-1.0; expected None, a finite number > 0, or an array of one number"),
        ({"scale": np.ones(2)}, r"scale has shape \(2,\).*expected one real number"),
        ({"decay": [True]}, "expected True or False for each of the 2 arrays"),
        ({"decay": [0.5, True]}, "expected True or False for each"),
        ({"lr": -0.1}, "lr=-0.1; expected a number >= 0 and finite, or a schedule"),
        ({"lr": "cosine"}, "depends on the number of planned steps, which update.. does not know"),
        ({"lr": lambda t, total: -1.0}, "the schedule gave learning rates from -"),
        ({"zero": 2}, "zero=2; expected True or False"),
    ],
)
def test_options_that_make_no_sense(on: Any, options: dict, message: str) -> None:
    params, opt = [on.asarray(np.ones(3)), on.asarray(np.ones((2, 2)))], gpumlp.Adam()
    with pytest.raises(ValueError, match=message):
        opt.update(params, [p.copy() for p in params], **options)
    assert opt.t == 0 and all((on.to_numpy(p) == 1).all() for p in params)


def test_zeroed_gradients_must_be_apart(on: Any) -> None:
    p, opt = on.asarray(np.ones(3)), gpumlp.SGD(lr=0.5)
    with pytest.raises(ValueError, match=r"zero=True, but grads\[0\] and params\[0\] share memory"):
        opt.update(p, p, zero=True)
    g, q = on.asarray(np.ones(3)), on.asarray(np.ones(3))
    opt.update([p, q], [g, g], zero=True)
    assert (on.to_numpy(p) == 0.5).all() and (on.to_numpy(q) == 0.5).all() and (on.to_numpy(g) == 0).all()


def test_plain_and_other_calls_in_turns(on: Any) -> None:
    """All of them are steps of one count, with one state."""
    turns, plain = (gpumlp.Adam(lr=0.1) for _ in range(2))
    p, q = on.asarray(np.zeros(4)), on.asarray(np.zeros(4))
    for step in range(6):
        g = on.asarray(np.arange(4.0) - step)
        turns.update(p, g, **[{}, {"clip_norm": 1e9}, {"scale": 1.0}, {"lr": 0.1}][step % 4])
        plain.update(q, g)
    close(on.to_numpy(p), on.to_numpy(q), "optimizer")
    assert turns.t == plain.t == 6


def test_steps_are_counted_where_the_parameters_go(on: Any) -> None:
    moving, plain, q = gpumlp.Adam(lr=0.1), gpumlp.Adam(lr=0.1), np.zeros(4)
    p: Any = np.zeros(4)
    for step, move in enumerate([on.asarray, on.asarray, np.array, on.asarray, np.array]):
        g = np.arange(4.0) - step
        p = move(p.get() if hasattr(p, "get") else p)
        moving.update(p, move(g), scale=1.0)
        plain.update(q, g)
        assert moving.t == step + 1
    close(p, q, "optimizer")


def test_gradients_of_a_network(device: str) -> None:
    """What `backward` gives, clipped, scaled and masked, is a step of a trainer."""
    X, T = values((16, 5), "f4", 0), values((16, 3), "f4", 1)
    kind = {"dtype": "float32", "device": device, "init": 0.5}
    one, other = gpumlp.MLP([5, 9, 3], "tanh", **kind), gpumlp.MLP([5, 9, 3], "tanh", **kind)
    rule = gpumlp.AdamW(lr=0.01, l2=0.1)
    trainer = gpumlp.Trainer(one, loss="squared_error", optimizer=rule, batch_size=16, clip_norm=0.1)
    there = [other.backend.asarray(a) for a in (X, T)]
    for _ in range(3):
        trainer.step(X, T)
        dY = (other.forward(there[0], keep=True) - there[1]) * np.float32(8 / 48)
        grads = other.backward(dY)
        masks = [True, True, False, False]
        rule.update([*other.weights, *other.biases], grads, clip_norm=0.1, scale=8.0, decay=masks, zero=True)
    for a, b in zip(one.get_parameters(), other.get_parameters(), strict=True):
        close(a[0], b[0], "50 training steps")
        close(a[1], b[1], "50 training steps")
