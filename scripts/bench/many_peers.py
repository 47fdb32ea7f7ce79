"""Many networks of one shape trained by JAX (`vmap` in a `scan`) and PyTorch (`torch.func`), beside gpumlp.

Both are written as their documentation advises: all parameters, both averages of Adam and the learning rates
have an axis of networks in front, and one program does a step of all.  The row orders are made before the
clock starts.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scripts.bench.many_task import Make, ManyTask, own_candidates
from scripts.bench.torch_training import products, sees_cuda
from scripts.bench.training_peers import jax_device, jax_start, jax_step, missing
from scripts.bench.training_task import EPS
from scripts.shared.machine import simulated


def _turns(task: ManyTask, title: str, run: Callable[[Any], Any], ready: Callable[[np.ndarray], Any]) -> Any:
    """What is timed, of `run`: it does an epoch in the order that `ready` gives, and returns the mean loss of
    each network."""
    done = [0]

    def turn() -> float:
        orders = [ready(task.order(done[0] + number)) for number in range(task.epochs)]
        done[0] += task.epochs
        start = time.perf_counter()
        losses = [run(order) for order in orders]
        last = np.asarray(losses[-1])  # waits
        seconds = time.perf_counter() - start
        if title not in task.losses:
            task.losses[title] = np.asarray(losses[0])
        assert last.shape == (task.members,)
        return seconds / (task.epochs * task.steps * task.members)

    return turn


def with_jax(task: ManyTask, device: str) -> Callable[[], float]:
    """One `lax.scan` over the steps of an epoch, each step vmapped over the networks, jitted; float32."""
    import jax
    import jax.numpy as jnp

    place = jax.devices("cpu" if device == "cpu" else "gpu")[0]
    axes = (0, 0, 0, None), None, None, 0, 0

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state: Any, X: Any, y: Any, order: Any, rates: Any) -> tuple[Any, Any]:
        step = jax.vmap(jax_step, in_axes=axes, out_axes=((0, 0, 0, None), 0))
        state, losses = jax.lax.scan(lambda held, index: step(held, X, y, index, rates), state, order)
        return state, losses.mean(axis=0)

    with jax.default_device(place):
        X, y = jnp.asarray(task.X), jnp.asarray(task.y.astype(np.int32))
        rates = jnp.asarray(task.rates.astype(np.float32))
        held = [jax_start(task.parameters)]

    def run(order: Any) -> Any:
        with jax.default_device(place), jax.default_matmul_precision("float32"):
            held[0], losses = epoch(held[0], X, y, order, rates)
        return losses

    def ready(order: np.ndarray) -> Any:
        return jax.device_put(order.astype(np.int32), place)

    return _turns(task, JAX, run, ready)


class _TorchAdam:
    """Adam on stacked parameters, with a learning rate for each network."""

    def __init__(self, torch: Any, params: dict[str, Any], rates: Any) -> None:
        self._torch, self._params, self._t = torch, list(params.values()), 0
        self._m, self._v = ([torch.zeros_like(p) for p in self._params] for _ in range(2))
        self._rates = [rates.view(-1, *[1] * (p.ndim - 1)) for p in self._params]

    def step(self, grads: list[Any]) -> None:
        """With the gradients in the order of the parameters."""
        self._t += 1
        c1, c2 = 1 / (1 - 0.9**self._t), 1 / (1 - 0.999**self._t)
        torch, m, v = self._torch, self._m, self._v
        torch._foreach_lerp_(m, grads, 0.1)
        torch._foreach_mul_(v, 0.999)
        torch._foreach_addcmul_(v, grads, grads, 0.001)
        root = torch._foreach_mul(v, c2)
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, EPS)
        delta = torch._foreach_div(m, root)
        torch._foreach_mul_(delta, self._rates)
        torch._foreach_add_(self._params, delta, alpha=-c1)


def _torch_networks(torch: Any, task: ManyTask, device: str) -> tuple[Any, dict[str, Any]]:
    """(a network without values, the stacked parameters of all)."""
    layers: list[Any] = []
    for W, _ in task.parameters:
        layers += [torch.nn.Linear(*W.shape[1:], device="meta"), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    names = [name for name, _ in network.named_parameters()]  # weight and bias of each layer
    arrays = [a for W, b in task.parameters for a in (W.swapaxes(1, 2), b)]
    values = [torch.from_numpy(np.ascontiguousarray(a)).to(device, copy=True) for a in arrays]
    return network, dict(zip(names, values, strict=True))


def with_torch(task: ManyTask, device: str) -> Callable[[], float]:
    """`vmap` of `grad_and_value` of a functional call, and Adam by its multi-tensor operations; float32."""
    import torch
    from torch.func import functional_call, grad_and_value, vmap

    network, params = _torch_networks(torch, task, device)
    X, y = torch.from_numpy(task.X).to(device), torch.from_numpy(task.y).to(device)
    rates = torch.from_numpy(task.rates.astype(np.float32)).to(device)
    adam = _TorchAdam(torch, params, rates)

    def loss_of(values: Any, rows: Any, targets: Any) -> Any:
        return torch.nn.functional.cross_entropy(functional_call(network, values, (rows,)), targets)

    gradients = vmap(grad_and_value(loss_of))

    def run(order: Any) -> Any:
        total = torch.zeros(task.members, device=device)
        with torch.no_grad(), products("float32"):
            for index in order:
                grads, losses = gradients(params, X[index], y[index])
                adam.step([grads[name] for name in params])
                total += losses
        return (total / task.steps).cpu()

    def ready(order: np.ndarray) -> Any:
        return torch.from_numpy(order.astype(np.int64)).to(device)

    return _turns(task, TORCH, run, ready)


JAX, TORCH = "JAX vmap", "PyTorch vmap"
#: name -> (title, what makes the call that is timed)
PEERS: dict[str, tuple[str, Callable[[ManyTask, str], Callable[[], float]]]] = {
    "jax": (JAX, with_jax),
    "torch": (TORCH, with_torch),
}


def _sees(peer: str) -> bool:
    """Whether the peer can use a CUDA device."""
    return bool(jax_device()) if peer == "jax" else sees_cuda()


def candidates(task: ManyTask, device: str, peers: Sequence[str]) -> dict[str, Make]:
    """Name -> what makes the call that is timed, for gpumlp and the peers given."""
    makes = own_candidates(task, device)
    for peer in peers:
        title, make = PEERS[peer]
        makes[title] = functools.partial(make, task, "cuda" if device == "cuda" else "cpu")
    return makes


def usable_peers(device: str, wanted: Sequence[str], tell: Callable[[str], None]) -> list[str]:
    """Those that are installed and can use the device; calls `tell` with a line about each other one."""
    if device == "cuda" and simulated():
        tell("The device is simulated: PyTorch and JAX are left out.")
        return []
    found = []
    for peer in wanted:
        if module := missing(peer):
            tell(f"without {peer}: {module} is not installed")
        elif device == "cuda" and not _sees(peer):
            tell(f"without {PEERS[peer][0]}: it sees no CUDA device")
        else:
            found.append(peer)
    return found
