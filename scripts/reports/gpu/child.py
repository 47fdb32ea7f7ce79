"""Runs one part: python child.py PART FILE SECONDS [quick]; FILE gets what is found, line by line."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import gpumlp
from scripts.reports.gpu import launches, memory, steps
from scripts.reports.gpu.many import many
from scripts.reports.gpu.part import Part
from scripts.shared.machine import machine


def facts(part: Part) -> None:
    """What the figures depend on; fails where no CUDA device can be used."""
    backend = gpumlp.get_backend("cuda")
    found = {**machine(), **backend.info(), "gpumlp": gpumlp.__version__, "package": gpumlp.__path__[0]}
    for name, value in found.items():
        part.row("machine", what=name, value=value)
    for name, tell in (("torch", _torch), ("jax", _jax)):
        if importlib.util.find_spec(name) is None:
            part.row("machine", what=name, value="not installed")
            continue
        with part.attempt(name):
            tell(part)
    part.row("machine", what="Python", value=platform.python_version())


def _torch(part: Part) -> None:
    import torch

    part.row("machine", what="torch", value=f"{torch.__version__}, CUDA {torch.version.cuda}")
    for number in range(torch.cuda.device_count()):
        part.row("machine", what="torch sees", value=torch.cuda.get_device_name(number))


def _jax(part: Part) -> None:
    import jax

    part.row("machine", what="jax", value=f"{jax.__version__}, {jax.devices()}")


def essentials(part: Part) -> None:
    """What matters most, in two minutes."""
    with part.attempt("GPU against NumPy"):
        steps.agreement(part)
    with part.attempt("step times"):
        steps.own_steps(part)
    with part.attempt("time per node"):
        launches.per_node(part)
    with part.attempt("bandwidth"):
        memory.updates(part, ["adam"], [10**4] if part.quick else [10**8, 10**7, 10**6])
    with part.attempt("step times beside peers"):
        steps.peers_steps(part)


RUN: dict[str, Callable[[Part], None]] = {
    "machine": facts,
    "essentials": essentials,
    "training": steps.training,
    "many": many,
    "auto": steps.auto,
    "nodes": launches.nodes,
    "epochs": launches.epochs,
    "bandwidth": memory.bandwidth,
    "streaming": memory.streaming,
    "start-up": memory.start_up,
    "lists": memory.lists,
    "graphs": launches.graphs,
    "memory": memory.memory,
    "tests": memory.tests,
}


def main(name: str, file: str, seconds: str, *flags: str) -> None:
    """Run the part `name`."""
    with open(file, "a", encoding="utf-8") as stream:
        part = Part(stream, float(seconds), "quick" in flags)
        with part.attempt(name):
            RUN[name](part)


if __name__ == "__main__":
    main(*sys.argv[1:])
