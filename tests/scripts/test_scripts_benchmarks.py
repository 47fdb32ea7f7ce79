"""The benchmarks on tiny sizes: what they report must follow from what they measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

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
    copies = {(r["rule"], r["size"]): r for r in stored["results"] if "copy" in r["candidate"]}
    for r in stored["results"]:
        n_bytes = bench.bytes_moved(r["rule"], r["size"])
        assert r["gb_per_s"] == pytest.approx(n_bytes / r["seconds"] / 1e9)
        assert r["share"] == pytest.approx(copies[r["rule"], r["size"]]["seconds"] / r["seconds"])
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
    file.write_text("{")
    with pytest.raises(SystemExit, match="cannot read the baseline"):
        main([*args, "--baseline", str(file)])
    assert "more than 25%: none" in capsys.readouterr().out


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


@pytest.mark.parametrize("peer", ["torch", "jax"])
def test_training_benchmark_does_the_peers_arithmetic(script: Script, peer: str) -> None:
    pytest.importorskip(peer)
    output = script("bench_training").main(
        ["--peers", peer, "--shapes", "6-8-5-3:16:20", "--repeats", "1", "--device", "numpy"]
    )
    (result,) = output["results"]
    first, second = (row["loss"] for row in result["rows"].values())
    # the same batches and formulas; float32 rounding over 80 steps
    assert first == pytest.approx(second, rel=1e-4)


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
