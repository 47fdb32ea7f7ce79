"""The benchmarks on tiny sizes: what they report must follow from what they measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

Script = Callable[[str], ModuleType]
TINY = ["--sizes", "40", "700", "--sample", "1e-4", "--repeats", "2"]


def test_bytes_of_the_formulas(script: Script) -> None:
    bench = script("bench.bench_kernels")
    wanted = {
        "sgd": 12,
        "momentum": 20,
        "nesterov": 20,
        "adagrad": 20,
        "rmsprop": 20,
        "adam": 28,
        "adamw": 28,
        "lion": 20,
        "radam": 28,
    }
    assert {rule: bench.bytes_moved(rule, 1) for rule in wanted} == wanted
    assert bench.bytes_moved("adam", 1000) == 28_000


def test_kernel_benchmark_reports_all_cells(script: Script, device: str, tmp_path: Path) -> None:
    file, plot = tmp_path / "kernels.json", tmp_path / "kernels.png"
    bench = script("bench.bench_kernels")
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
    main, file = script("bench.bench_kernels").main, tmp_path / "old.json"
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
    bench, cells = script("bench.bench_kernels"), script("bench.kernel_cells")
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
                results.append(cells.Result(rule, size, name, seconds, 0.0, 1.0, values[3] / seconds))
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
    output = script("bench.bench_kernels").main(args)
    assert output["results"] == []
    assert len(output["skipped"]) == 1 and output["skipped"][0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "rule",
    ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "adadelta", "nadam", "radam"],
)
def test_kernel_benchmark_peers_do_the_same_arithmetic(script: Script, rule: str) -> None:
    pytest.importorskip("torch")
    bench, peers = script("bench.bench_kernels"), script("bench.update_peers")
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
        if name == "torch fused" and rule in ("rmsprop", "adadelta", "nadam", "radam"):
            continue  # PyTorch has none
        p[:] = start
        # lr is 1e-4 and p about 0.01: its rounding errors are 1e-5 of a step
        np.testing.assert_allclose(moved(candidates, name, p), wanted, rtol=1e-4, atol=1e-9)


def test_ratios_are_taken_within_rounds(script: Script) -> None:
    """A round in which the whole machine was slow counts like any other."""
    cells = script("bench.kernel_cells")
    ours = cells.Result("sgd", 10, "native update", 2.0, 0.0, 1.0, 1.0, times=(1.0, 2.0, 30.0))
    theirs = cells.Result("sgd", 10, "torch fused", 4.0, 0.0, 1.0, 1.0, times=(4.0, 4.0, 60.0))
    assert ours.over(theirs) == 0.5
    theirs.times = ()
    assert ours.over(theirs) == 0.5


def test_kernel_benchmark_goes_on_without_peers_that_fail(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, timing = script("bench.bench_kernels"), script("shared.timing")

    def broken(k: int) -> None:
        raise RuntimeError("no such form here")

    peer = timing.Candidate("torch fused", broken, timing.host_clock)
    monkeypatch.setattr(bench, "peers", lambda *_: [peer])
    output = bench.main([*TINY, "--device", "numpy", "--rules", "adam"])
    assert "numpy plan" in {r["candidate"] for r in output["results"]}
    assert "torch fused" not in {r["candidate"] for r in output["results"]}
    assert (
        "adam, 40 parameters without torch fused: RuntimeError('no such form here')"
        in capsys.readouterr().err
    )
