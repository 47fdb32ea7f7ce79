"""The benchmarks on tiny sizes: what they report must follow from what they measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import gpumlp

Script = Callable[[str], ModuleType]
TINY = ["--sizes", "40", "700", "--sample", "1e-4", "--repeats", "2"]


def test_bytes_of_the_formulas(script: Script) -> None:
    bench = script("bench_kernels")
    wanted = {
        "sgd": 12,
        "momentum": 20,
        "nesterov": 20,
        "adagrad": 20,
        "rmsprop": 20,
        "adam": 28,
        "adamw": 28,
    }
    assert {rule: bench.bytes_moved(rule, 1) for rule in wanted} == wanted
    assert bench.bytes_moved("adam", 1000) == 28_000


def test_kernel_benchmark_reports_all_cells(script: Script, device: str, tmp_path: Path) -> None:
    file, plot = tmp_path / "kernels.json", tmp_path / "kernels.png"
    bench = script("bench_kernels")
    output = bench.main([*TINY, "--device", device, "--json", str(file), "--plot", str(plot)])
    stored = json.loads(file.read_text())
    assert stored == json.loads(json.dumps(output))
    assert "numpy" in stored["machine"]
    cells = {(r["rule"], r["size"]) for r in stored["results"] if r["candidate"].startswith(f"{device} plan")}
    assert cells == {(rule, size) for rule in bench.rules() for size in (40, 700)}
    copies: dict[tuple[str, int], float] = {}  # the fastest copy of a cell is the yardstick
    for r in stored["results"]:
        if "copy" in r["candidate"]:
            key = r["rule"], r["size"]
            copies[key] = min(r["seconds"], copies.get(key, r["seconds"]))
    for r in stored["results"]:
        n_bytes = bench.bytes_moved(r["rule"], r["size"])
        assert r["gb_per_s"] == pytest.approx(n_bytes / r["seconds"] / 1e9)
        assert r["share"] == pytest.approx(copies[r["rule"], r["size"]] / r["seconds"])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_kernel_benchmark_flags_what_became_slower(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main, file = script("bench_kernels").main, tmp_path / "old.json"
    args = [*TINY, "--device", "numpy", "--rules", "adam"]
    old = main([*args, "--json", str(file)])
    for factor, wanted in ((1e-6, 2), (1e6, 0)):  # no machine's speed changes by so much
        scaled = [{**r, "seconds": r["seconds"] * factor} for r in old["results"]]
        file.write_text(json.dumps({**old, "results": scaled}))
        lines = main([*args, "--baseline", str(file)])["regressions"]
        assert len(lines) == wanted
        assert all(line.startswith("adam, ") and "numpy plan" in line for line in lines)
    for wrong in ("{", "[]", '{"machine": {}, "results": [{"rule": "adam"}]}'):
        file.write_text(wrong)
        with pytest.raises(SystemExit, match="cannot read the baseline"):
            main([*args, "--baseline", str(file)])
    assert "more than 25%: none" in capsys.readouterr().out


def test_kernel_benchmark_counts_what_misses_the_limits(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = script("bench_kernels")
    times = {  # seconds: ours, PyTorch fused, for-loop, copy
        ("adam", 10**5): (0.4, 1.0, 0.1, 1.0),
        ("adam", 10**7): (1.0, 0.9, 5.0, 0.8),
        ("rmsprop", 10**7): (1.0, None, 2.0, 0.9),
    }
    results = []
    for (rule, size), values in times.items():
        names = ("native update", "torch fused", "torch for-loop", "copy by kernel")
        for name, seconds in zip(names, values, strict=True):
            if seconds:
                results.append(bench.Result(rule, size, name, seconds, 0.0, 1.0, values[3] / seconds))
    compared = bench.compare(results)
    assert [row["torch_form"] for row in compared] == ["fused", "fused", "for-loop"]
    assert [row["ratio"] for row in compared] == pytest.approx([0.4, 1 / 0.9, 0.5])
    verdicts = bench.verdicts(compared)
    assert [(v["cells"], v["missed"]) for v in verdicts] == [(3, 1), (1, 1), (2, 1)]
    assert verdicts[0]["worst_at"] == verdicts[2]["worst_at"] == "adam, 10,000,000"
    bench.show_summary(compared, verdicts)
    text = capsys.readouterr().out
    assert "1.1 !" in text and "80% !" in text and "90%" in text and "2 of 3" in text


def test_kernel_benchmark_leaves_out_what_has_no_room(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/proc/meminfo").exists():
        pytest.skip("the system does not tell how much memory is free")
    args = ["--device", "numpy", "--rules", "adam", "--sizes", "1e14"]
    output = script("bench_kernels").main(args)
    assert output["results"] == []
    assert len(output["skipped"]) == 1 and output["skipped"][0] in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"])
def test_kernel_benchmark_peers_do_the_same_arithmetic(script: Script, rule: str) -> None:
    pytest.importorskip("torch")
    bench, peers = script("bench_kernels"), script("_update_peers")
    start, g = bench.start_values(1000)
    start *= 0.01
    g[:] = np.sign(g) + g  # none near 0, where the libraries' different eps would show

    def moved(candidates: list[Any], name: str, p: np.ndarray) -> np.ndarray:
        before = p.copy()
        next(c for c in candidates if c.name == name).run(1)
        return p - before

    p = start.copy()
    wanted = moved(bench.ours(rule, "numpy", bench.backends(["numpy"])["numpy"], p, g), "numpy plan", p)
    candidates = peers.torch_forms(rule, bench.LR, p, g, "cpu")
    for name in ("torch fused", "torch for-loop"):
        if name == "torch fused" and rule == "rmsprop":
            continue  # PyTorch has none
        p[:] = start
        # lr is 1e-4 and p about 0.01: its rounding errors are 1e-5 of a step
        np.testing.assert_allclose(moved(candidates, name, p), wanted, rtol=1e-4, atol=1e-9)


def test_training_benchmark_on_one_executor(script: Script, device: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    file, plot = tmp_path / "training.json", tmp_path / "training.png"
    args = ["--peers", "sklearn", "--shapes", "6-8-3:16:20", "--repeats", "2", "--json", str(file)]
    output = script("bench_training").main([*args, "--device", device, "--plot", str(plot)])
    assert json.loads(file.read_text()) == json.loads(json.dumps(output))
    (result,) = output["results"]
    assert result["shape"] == "6-8-3 (16)" and result["unlike"] == []
    assert len(result["rows"]) == 2 and "scikit-learn" in result["rows"]
    assert all(row["seconds"] > 0 for row in result["rows"].values())
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("peer", ["torch", "jax", "jax-step", "keras", "thinc"])
def test_training_benchmark_does_the_peers_arithmetic(script: Script, peer: str) -> None:
    bench = script("bench_training")
    if not bench.installed(peer):
        pytest.skip(f"{peer} is not installed")
    output = bench.main(["--peers", peer, "--shapes", "6-8-5-3:16:20", "--repeats", "1", "--device", "numpy"])
    (result,) = output["results"]
    first, second = (row["loss"] for row in result["rows"].values())
    # the same batches and formulas; float32 rounding over 80 steps
    assert first == pytest.approx(second, rel=1e-4)


def test_training_benchmark_flags_what_became_slower(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    main, file = script("bench_training").main, tmp_path / "old.json"
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
    regressions = script("bench_training").regressions
    results = [{"shape": "s", "rows": {"gpumlp native": {"seconds": 1.2}, "JAX scan": {"seconds": 9.0}}}]
    baseline = {"seconds": {("s", "gpumlp native"): 1.0, ("s", "JAX scan"): 1.0}}
    assert regressions(results, baseline, 0.25) == []
    (line,) = regressions(results, baseline, 0.15)
    assert line == "s, gpumlp native: 1 s -> 1.2 s (1.20 x)"
    assert regressions([{**results[0], "shape": "new"}], baseline, 0.0) == []


def test_training_benchmark_compares_native_with_the_best(script: Script) -> None:
    seconds = {"gpumlp native": 2, "gpumlp numpy": 1, "PyTorch": 8, "PyTorch compiled": 5, "JAX scan": 4}
    rows = {name: {"seconds": value} for name, value in {**seconds, "PyTorch cuda": 1}.items()}
    ratios = script("bench_training").ratios
    assert ratios(rows) == {
        "best peer": {"peer": "JAX scan", "ratio": 0.5},
        "best of PyTorch and scikit-learn": {"peer": "PyTorch compiled", "ratio": 0.4},
    }
    assert ratios({"gpumlp native": {"seconds": 1}}) == {}
    assert ratios({"JAX scan": {"seconds": 1}}) == {}


def test_training_benchmark_goes_on_without_peers_that_fail(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = script("bench_training")

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
    task = script("bench_training").Task([6, 8, 3], 16, 20)
    model = gpumlp.MLP([6, 8, 3], seed=0, device="numpy")
    scores = np.asarray(model.predict(task.X), np.float64)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    wanted = -log_p[np.arange(len(scores)), task.y].mean()
    assert task.start_loss() == pytest.approx(wanted, rel=1e-5)


def test_training_benchmark_notices_unlike_losses(script: Script) -> None:
    unlike = script("bench_training").unlike
    assert unlike({"a": 0.50, "b": 0.501, "scikit-learn": 0.55}, 1.0) == []
    (line,) = unlike({"a": 0.50, "b": 0.501, "c": 0.56}, 1.0)
    assert line.startswith("c: loss 0.5600")
    (line,) = unlike({"a": 0.50, "b": float("nan"), "c": 0.50}, 1.0)
    assert line.startswith("b: ")
    assert len(unlike({"a": 1.2, "b": 1.2}, 1.0)) == 2  # alike, but nothing was learnt


@pytest.mark.parametrize("text", ["32", "32-16-2", "a-b:3", "8-2:0", "8-2:4:5:6"])
def test_bad_shapes_are_refused(script: Script, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script("bench_training").main(["--shapes", text])
    assert "expected such as 32-16-2:32:300" in capsys.readouterr().err


def test_ratios_are_taken_within_rounds(script: Script) -> None:
    """A round in which the whole machine was slow counts like any other."""
    bench = script("bench_kernels")
    ours = bench.Result("sgd", 10, "native update", 2.0, 0.0, 1.0, 1.0, times=(1.0, 2.0, 30.0))
    theirs = bench.Result("sgd", 10, "torch fused", 4.0, 0.0, 1.0, 1.0, times=(4.0, 4.0, 60.0))
    assert ours.over(theirs) == 0.5
    theirs.times = ()
    assert ours.over(theirs) == 0.5
