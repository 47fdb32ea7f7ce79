"""PyTorch on a CUDA device, the ways a careful user would run a small network: for `gpu_report.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bench_training as bt
import numpy as np
from _peers import after_warm_up

Epoch = Callable[[], tuple[float, float]]


def available() -> bool:
    """Whether PyTorch is installed and sees a CUDA device."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def ways(task: bt.Task) -> dict[str, Epoch]:
    """Name -> function that trains two epochs and gives (seconds, mean loss) of the second."""
    return {
        "PyTorch eager, fused Adam": bt.with_torch(task, False, "cuda"),
        "PyTorch torch.compile": bt.with_torch(task, True, "cuda"),
        "PyTorch CUDA graph": with_graph(task),
    }


def fused_adam(count: int, shape: tuple[int, ...]) -> Callable[[], Any]:
    """`step` of one optimiser for `count` arrays."""
    import torch

    params = [torch.nn.Parameter(torch.zeros(shape, device="cuda")) for _ in range(count)]
    for p in params:
        p.grad = torch.zeros_like(p)
    # on the stream on which CuPy's events are
    return torch.optim.Adam(params, fused=True).step


def with_graph(task: bt.Task) -> Epoch:
    """One CUDA graph per step: gather by a static index, forward, backward, fused capturable Adam."""
    import torch

    layers: list[Any] = []
    for W, b in task.parameters:
        layer = torch.nn.Linear(*W.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(W.T.copy()))
            layer.bias.copy_(torch.from_numpy(b))
        layers += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1]).cuda()
    start = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=bt.LR, eps=bt.EPS, fused=True, capturable=True)
    X, y = torch.from_numpy(task.X).cuda(), torch.from_numpy(task.y).cuda()
    index = torch.zeros(task.batch, dtype=torch.int64, device="cuda")
    total = torch.zeros((), device="cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(network(X[index]), y[index])
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())

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
