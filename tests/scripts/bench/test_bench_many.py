"""bench_many.py on few and short fits."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

Script = Callable[[str], ModuleType]


@pytest.mark.parametrize("peers", [True, False])
def test_prints_a_table_of_fits(
    script: Script, device: str, peers: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    options = ["--device", device, "--tables", "fits", "--quick"]
    options += [] if peers else ["--without-sklearn"]
    assert script("bench.bench_many").main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if "64-64-10" in line or "30-16-1" in line]
    assert len(found) == 2
    for line in found:
        told = line.split()[-1]
        assert float(told) < 1e-4 if device == "cuda" else told == "equal"


def test_prints_a_table_of_steps(script: Script, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", device, "--tables", "steps", "--quick", "--members", "2", "--peers"]
    assert script("bench.bench_many").main(options) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith(("8-64-64-2", "64-128-10", "784-256"))]
    assert [line.split()[2] for line in lines] == ["2"] * 3
    assert ("one thread each" in out) == (device == "native")


@pytest.mark.parametrize(("name", "module"), [("jax", "jax"), ("torch", "torch")])
def test_peers_train_the_same_networks(script: Script, name: str, module: str) -> None:
    pytest.importorskip(module)
    many = script("bench.many_task")
    task = many.ManyTask((6, 5, 3), 8, 10, 3, epochs=2)
    for make in script("bench.many_peers").candidates(task, "numpy", [name]).values():
        make()()
    ours, *_, peers = task.losses.values()
    assert not task.unlike()
    np.testing.assert_allclose(peers, ours, rtol=1e-4)


def test_networks_that_learn_something_else_are_told(script: Script) -> None:
    many = script("bench.many_task")
    task = many.ManyTask((6, 5, 3), 8, 10, 3)
    task.losses = {many.OURS: np.array([1.0, 2.0, 3.0]), "alike": np.array([1.0, 2.001, 3.0])}
    assert not task.unlike()
    task.losses |= {"other": np.array([1.0, 2.0, 3.1]), "lost": np.array([np.nan, 2.0, 3.0])}
    told = task.unlike()
    assert len(told) == 2
    assert "other: a loss differs by 3.3%" in told[0]
