"""bench_training.py on tiny shapes: what it reports must follow from what it measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import gpumlp

Script = Callable[[str], ModuleType]


def test_training_benchmark_on_one_executor(script: Script, device: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    file, plot = tmp_path / "training.json", tmp_path / "training.png"
    args = ["--peers", "sklearn", "--shapes", "6-8-3:16:20", "--repeats", "2", "--json", str(file)]
    output = script("bench.bench_training").main([*args, "--device", device, "--plot", str(plot)])
    assert json.loads(file.read_text()) == json.loads(json.dumps(output))
    (result,) = output["results"]
    assert result["shape"] == "6-8-3 (16)" and result["unlike"] == []
    assert len(result["rows"]) == 2 and "scikit-learn" in result["rows"]
    assert all(row["seconds"] > 0 for row in result["rows"].values())
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("peer", ["torch", "jax", "jax-step", "keras", "thinc"])
def test_training_benchmark_does_the_peers_arithmetic(script: Script, peer: str) -> None:
    bench = script("bench.bench_training")
    if not bench.installed(peer):
        pytest.skip(f"{peer} is not installed")
    output = bench.main(["--peers", peer, "--shapes", "6-8-5-3:16:20", "--repeats", "1", "--device", "numpy"])
    (result,) = output["results"]
    first, second = (row["loss"] for row in result["rows"].values())
    # the same batches and formulas; float32 rounding over 80 steps
    assert first == pytest.approx(second, rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("peer", ["torch", "jax"])
def test_peers_compute_in_the_precision_that_is_asked_for(script: Script, peer: str, precision: str) -> None:
    module = pytest.importorskip(peer)
    task = script("bench.training_task").Task([6, 8, 5, 3], 16, 20)
    with_gpumlp = script("bench.training_task").with_gpumlp
    _, wanted = with_gpumlp(task, gpumlp.get_backend("numpy"))()
    if peer == "torch":
        before = module.get_float32_matmul_precision()
        epoch = script("bench.torch_training").with_torch(task, False, "cpu", precision)
    else:
        epoch = script("bench.training_peers").with_jax(task, True, "cpu", precision)
    _, loss = epoch()
    # a CPU has no TF32; factors of 8 bits move the loss of 40 steps by far less than a percent
    assert loss == pytest.approx(wanted, rel=1e-2 if precision == "bfloat16" else 1e-4)
    if peer == "torch":
        assert module.get_float32_matmul_precision() == before
        assert precision != "bfloat16" or loss != pytest.approx(wanted, rel=1e-7)


def test_training_benchmark_flags_what_became_slower(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    main, file = script("bench.bench_training").main, tmp_path / "old.json"
    args = ["--peers", "sklearn", "--shapes", "6-8-3:16:20", "--repeats", "1", "--device", "numpy"]
    old = main([*args, "--json", str(file)])
    assert old["regressions"] == []
    for factor, wanted in ((1e-6, 1), (1e6, 0)):  # no machine's speed changes by so much
        scaled = json.loads(json.dumps(old))
        for row in scaled["results"][0]["rows"].values():
            row["seconds"] *= factor
        file.write_text(json.dumps(scaled))
        lines = main([*args, "--baseline", str(file)])["regressions"]
        assert len(lines) == wanted  # scikit-learn's figures are not ours to flag
        assert all(line.startswith("6-8-3 (16), gpumlp numpy: ") for line in lines)
    assert "more than 25%: none" in capsys.readouterr().out
    for text in ("{", "[]", '{"machine": {}, "results": [{"rule": "adam"}]}'):
        file.write_text(text)
        with pytest.raises(SystemExit, match="cannot read the baseline"):
            main([*args, "--baseline", str(file)])


def test_training_benchmark_tolerance_is_a_fraction(script: Script) -> None:
    regressions = script("bench.bench_training").regressions
    results = [{"shape": "s", "rows": {"gpumlp native": {"seconds": 1.2}, "JAX scan": {"seconds": 9.0}}}]
    baseline = {"cells": {("s", "gpumlp native"): 1.0, ("s", "JAX scan"): 1.0}}
    assert regressions(results, baseline, 0.25) == []
    (line,) = regressions(results, baseline, 0.15)
    assert line == "s, gpumlp native: 1 s -> 1.2 s (1.20 x)"
    assert regressions([{**results[0], "shape": "new"}], baseline, 0.0) == []


def test_training_benchmark_compares_native_with_the_best(script: Script) -> None:
    seconds = {"gpumlp native": 2, "gpumlp numpy": 1, "PyTorch": 8, "PyTorch compiled": 5, "JAX scan": 4}
    rows = {name: {"seconds": value} for name, value in {**seconds, "PyTorch cuda": 1}.items()}
    ratios = script("bench.bench_training").ratios
    assert ratios(rows) == {
        "best peer": {"peer": "JAX scan", "ratio": 0.5},
        "best of PyTorch and scikit-learn": {"peer": "PyTorch compiled", "ratio": 0.4},
    }
    assert ratios({"gpumlp native": {"seconds": 1}}) == {}
    assert ratios({"JAX scan": {"seconds": 1}}) == {}


def test_training_benchmark_goes_on_without_peers_that_fail(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = script("bench.bench_training")

    def broken(task: object) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setitem(bench.PEERS, "torch", bench.PEERS["torch"]._replace(modules=(), make=broken))
    monkeypatch.setitem(bench.PEERS, "thinc", bench.PEERS["thinc"]._replace(modules=("not_a_module",)))
    output = bench.main(
        ["--peers", "torch", "thinc", "--shapes", "6-8-3:16:20", "--repeats", "1", "--device", "numpy"]
    )
    assert list(output["results"][0]["rows"]) == ["gpumlp numpy"]
    err = capsys.readouterr().err
    assert "6-8-3 (16) without PyTorch: RuntimeError('no compiler here')" in err
    assert "without thinc: not_a_module is not installed" in err


def test_training_benchmark_knows_the_loss_before_training(script: Script) -> None:
    task = script("bench.bench_training").Task([6, 8, 3], 16, 20)
    model = gpumlp.MLP([6, 8, 3], seed=0, device="numpy")
    scores = np.asarray(model.predict(task.X), np.float64)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    wanted = -log_p[np.arange(len(scores)), task.y].mean()
    assert task.start_loss() == pytest.approx(wanted, rel=1e-5)


def test_training_benchmark_notices_unlike_losses(script: Script) -> None:
    unlike = script("bench.bench_training").unlike
    assert unlike({"a": 0.50, "b": 0.501, "scikit-learn": 0.55}, 1.0) == []
    (line,) = unlike({"a": 0.50, "b": 0.501, "c": 0.56}, 1.0)
    assert line.startswith("c: loss 0.5600")
    (line,) = unlike({"a": 0.50, "b": float("nan"), "c": 0.50}, 1.0)
    assert line.startswith("b: ")
    assert len(unlike({"a": 1.2, "b": 1.2}, 1.0)) == 2  # alike, but nothing was learnt


@pytest.mark.parametrize("text", ["32", "32-16-2", "a-b:3", "8-2:0", "8-2:4:5:6"])
def test_bad_shapes_are_refused(script: Script, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("bench.bench_training").main(["--shapes", text])
    assert "expected such as 32-16-2:32:300" in capsys.readouterr().err
