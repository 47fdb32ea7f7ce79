"""`Task` done by PyTorch, the ways a careful user would run a small network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scripts.bench.training_task import EPS, LR, Epoch, Task
from scripts.shared.timing import after_warm_up


@contextlib.contextmanager
def products(precision: str) -> Iterator[None]:
    """Products of float32 matrices are in float32 inside, or in TF32 where `precision` says so."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def objective_of(network: Any, precision: str, device: str) -> Callable[[Any, Any], Any]:
    """Mean loss of rows and targets; with "bfloat16" the products are in bfloat16, by autocast."""
    import torch

    def loss_of(rows: Any, targets: Any) -> Any:
        return torch.nn.functional.cross_entropy(network(rows), targets)

    if precision != "bfloat16":
        return loss_of
    # casts of weights that are kept from step to step would be wrong in a captured graph
    return torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False)(loss_of)


def network_of(task: Task, device: str) -> Any:
    """The network with the task's initial values."""
    import torch

    layers: list[Any] = []
    for W, b in task.parameters:
        layer = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(W.T.copy()))
            layer.bias.copy_(torch.from_numpy(b))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).to(device)


def with_torch(task: Task, compiled: bool, device: str = "cpu", precision: str = "float32") -> Epoch:
    """PyTorch with fused Adam; `compiled`: network and loss through torch.compile."""
    import torch

    network = network_of(task, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, eps=EPS, fused=True)
    X, y = torch.from_numpy(task.X).to(device), torch.from_numpy(task.y).to(device)

    objective = objective_of(network, precision, device)
    if compiled:
        torch.compiler.reset()  # after another shape it would compile for sizes that vary, which is slower
        objective = torch.compile(objective, dynamic=False)

    def epoch(number: int) -> float:
        order = torch.from_numpy(task.order(number).astype(np.int64)).to(device)
        total = torch.zeros((), device=device)
        with products(precision):
            for index in order.split(task.batch):
                optimizer.zero_grad(set_to_none=True)
                loss = objective(X[index], y[index])
                loss.backward()
                optimizer.step()
                total += loss.detach()
        return float(total) / task.steps

    return after_warm_up(epoch)


def with_graph(task: Task, precision: str = "float32") -> Epoch:
    """One CUDA graph per step: gather by a static index, forward, backward, fused capturable Adam."""
    import torch

    network = network_of(task, "cuda")
    start = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, eps=EPS, fused=True, capturable=True)
    X, y = torch.from_numpy(task.X).cuda(), torch.from_numpy(task.y).cuda()
    index = torch.zeros(task.batch, dtype=torch.int64, device="cuda")
    total = torch.zeros((), device="cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = objective(X[index], y[index])
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())

    objective = objective_of(network, precision, "cuda")
    with products(precision):
        graph = _captured(torch, step, optimizer)
    with torch.no_grad():  # back to the start: the warm-up steps have trained
        for name, value in network.state_dict().items():
            value.copy_(start[name])
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()

    def epoch(number: int) -> float:
        order = torch.from_numpy(task.order(number).astype(np.int64)).cuda()
        total.zero_()
        for batch in order.split(task.batch):
            index.copy_(batch)
            graph.replay()
        return float(total) / task.steps

    return after_warm_up(epoch)


def _captured(torch: Any, step: Callable[[], None], optimizer: Any) -> Any:
    """A graph of `step`, after three steps to warm up beside it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def fused_adam(count: int, shape: tuple[int, ...]) -> Callable[[], Any]:
    """`step` of one optimiser for `count` arrays."""
    import torch

    params = [torch.nn.Parameter(torch.zeros(shape, device="cuda")) for _ in range(count)]
    for p in params:
        p.grad = torch.zeros_like(p)
    # on the stream on which CuPy's events are
    return torch.optim.Adam(params, fused=True).step


def sees_cuda() -> bool:
    """Whether PyTorch is installed and sees a CUDA device."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())
