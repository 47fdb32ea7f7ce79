"""What `bench_kernels.py` compares with: optimisers of other libraries, where they are installed, and copies.

An optimiser does what a user of the library calls once per step: PyTorch's `optimizer.step()`, in every form
that it has; for optax a jitted function of `update` and `apply_updates`, given state and parameters to reuse.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from scripts.shared.inside import copy_plan
from scripts.shared.machine import cpu_count
from scripts.shared.timing import Candidate, Run, clock_of, host_clock, repeated, torch_clock

COPY, REWRITE = "copy", "rewrite"
#: without `fused` and with foreach=False, PyTorch loops over the parameters; RMSprop has no argument `fused`
TORCH_FORMS = {"fused": {"fused": True}, "foreach": {"foreach": True}, "for-loop": {"foreach": False}}


def peers(rule: str, lr: float, p: np.ndarray, g: np.ndarray, device: str) -> list[Candidate]:
    """All candidates of the same formula on "cpu" or "cuda"; some of them update `p` itself."""
    return [*torch_forms(rule, lr, p, g, device), *optax_jit(rule, lr, p, g, device)]


def bytes_needed(size: int, states: int) -> int:
    """Upper bound of the memory that `peers` takes with `states` arrays per parameter array."""
    arrays = 0
    if importlib.util.find_spec("torch"):
        arrays += len(TORCH_FORMS) * states + 2 + 3  # foreach has its own p and g; temporaries of one step
    if importlib.util.find_spec("optax"):
        arrays += 2 + 2 * states  # p, g, state; XLA may hold old and new
    return 4 * size * arrays


def release() -> None:
    """Give back the device memory that PyTorch keeps for later."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- PyTorch -----------------------------------------------------------------------------------------------
def torch_forms(rule: str, lr: float, p: np.ndarray, g: np.ndarray, device: str) -> list[Candidate]:
    """`step()` of PyTorch's optimiser, in each of `TORCH_FORMS` that this rule has."""
    try:
        import torch
    except ImportError:
        return []
    optim = torch.optim
    make: dict[str, tuple[Any, dict[str, Any]]] = {
        "sgd": (optim.SGD, {}),
        "momentum": (optim.SGD, {"momentum": 0.9}),
        "nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
        "adagrad": (optim.Adagrad, {}),
        "rmsprop": (optim.RMSprop, {"alpha": 0.9}),
        "adam": (optim.Adam, {}),
        "adamw": (optim.AdamW, {}),
        "adadelta": (optim.Adadelta, {}),
        "nadam": (optim.NAdam, {}),
        "radam": (optim.RAdam, {}),
    }
    if rule not in make or (device == "cuda" and not torch.cuda.is_available()):
        return []
    cls, options = make[rule]
    shared = [torch.from_numpy(a).to(device) for a in (p, g)]
    found = []
    for form, flags in TORCH_FORMS.items():
        # foreach with Nesterov's momentum adds to the gradient in place, so in the end its values are inf
        weights, gradient = (a.clone() for a in shared) if form == "foreach" else shared
        parameter = torch.nn.Parameter(weights)
        parameter.grad = gradient
        try:
            optimizer = cls([parameter], lr=lr, **options, **flags)
        except (TypeError, RuntimeError, ValueError):  # this version has no such form for this device
            continue
        name = f"torch {form}" + (" cuda" if device == "cuda" else "")
        found.append(Candidate(name, repeated(optimizer.step), torch_clock(torch, device)))
    return found


# ---- optax -------------------------------------------------------------------------------------------------
def optax_jit(rule: str, lr: float, p: np.ndarray, g: np.ndarray, device: str) -> list[Candidate]:
    """One jitted function per step; the host waits at the end of a run only, as a training loop would."""
    try:
        import jax
        import optax
    except ImportError:
        return []
    make: dict[str, Callable[[], Any]] = {
        "sgd": lambda: optax.sgd(lr),
        "momentum": lambda: optax.sgd(lr, momentum=0.9),
        "nesterov": lambda: optax.sgd(lr, momentum=0.9, nesterov=True),
        "adagrad": lambda: optax.adagrad(lr, initial_accumulator_value=0.0),
        "rmsprop": lambda: optax.rmsprop(lr, decay=0.9),
        "adam": lambda: optax.adam(lr),
        "adamw": lambda: optax.adamw(lr, weight_decay=0.01),
        "adadelta": lambda: optax.adadelta(lr),
        "yogi": lambda: optax.yogi(lr),
        "nadam": lambda: optax.nadam(lr),
        "radam": lambda: optax.radam(lr),
        "lion": lambda: optax.lion(lr, weight_decay=0.0),
    }
    try:
        where = jax.devices("cpu" if device == "cpu" else "gpu")[0]
    except RuntimeError:  # this JAX has no such device
        return []
    if rule not in make:
        return []
    rule_of = make[rule]()

    def step(p: Any, state: Any, g: Any) -> tuple[Any, Any]:
        updates, state = rule_of.update(g, state, p)
        return optax.apply_updates(p, updates), state

    jitted = jax.jit(step, donate_argnums=(0, 1))
    with jax.default_device(where):
        gradient = jax.device_put(g, where)
        weights = jax.numpy.array(jax.device_put(p, where), copy=True)  # of its own: it is donated
        held = [weights, jax.jit(rule_of.init)(weights)]
    del weights

    def run(k: int) -> None:
        for _ in range(k):
            held[:] = jitted(*held, gradient)
        jax.block_until_ready(held)

    return [Candidate("optax jit" + (" cuda" if device == "cuda" else ""), run, host_clock)]


# ---- copies ------------------------------------------------------------------------------------------------
@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cpu_count())


def copies(n_bytes: int, backend: Any) -> list[Candidate]:
    """Copies that read and write `n_bytes` in all: by a kernel, and the library's, by one thread and by all.

    On the host also rewrites in place of as many bytes.  They show what the memory can do: a copy's writes
    may first fetch the lines that they overwrite, which makes half as many bytes again that nobody counts,
    while an update has read its lines anyway.
    """
    n_floats = max(1, n_bytes // 8)
    x, y = (backend.zeros(n_floats, np.float32) for _ in range(2))
    by_kernel = copy_plan(backend, [(x, y)])
    if backend.xp is not np:
        return [
            Candidate(f"cuda {COPY} by kernel", by_kernel, clock_of(backend)),
            Candidate(f"cuda {COPY}", repeated(lambda: backend.copy(y, x)), clock_of(backend)),
        ]
    calls = {f"{COPY} by kernel": by_kernel, f"{COPY} by np.copyto": repeated(lambda: np.copyto(y, x))}
    calls[f"{REWRITE} by np.negative"] = repeated(lambda: np.negative(y, out=y))
    threads = cpu_count()
    if threads > 1 and n_bytes >= 1 << 20:  # for less, waking the threads takes longer than the copy
        edges = [n_floats * i // threads for i in range(threads + 1)]
        parts = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]

        def on_all(call: Callable[[slice], Any]) -> Run:
            return repeated(lambda: list(_pool().map(call, parts)))

        calls[f"{COPY} by np.copyto x {threads} threads"] = on_all(lambda part: np.copyto(y[part], x[part]))
        calls[f"{REWRITE} by np.negative x {threads} threads"] = on_all(
            lambda part: np.negative(y[part], out=y[part])
        )
    return [Candidate(name, run, host_clock) for name, run in calls.items()]
