"""bench_scaling.py on tiny sizes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import gpumlp

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script."""
    return script("bench.bench_scaling")


def test_sizes_and_slopes(bench: ModuleType) -> None:
    assert bench.decades(10**5) == [1000, 3000, 10_000, 30_000, 100_000]
    for wanted in bench.decades(10**6):
        sizes, _, n_parameters = bench.parameters_setup(wanted)
        assert n_parameters == sum((a + 1) * b for a, b in zip(sizes, sizes[1:], strict=False))
        assert n_parameters == pytest.approx(wanted, rel=0.2)  # widths are multiples of 8
    for power in (0.5, 1, 2):
        points = [{"size": n, "seconds": 3e-6 * n**power} for n in (10, 70, 2000)]
        assert bench.slope(points) == pytest.approx(power)


def test_time_over_size(
    bench: ModuleType, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "decades", lambda most: [600, 900, 1500])
    monkeypatch.setattr(bench, "TURN_SECONDS", 0)
    file, plot = tmp_path / "scaling.json", tmp_path / "scaling.png"
    args = ["--only", "rows", "parameters", "--repeats", "2", "--device", device]
    output = bench.main([*args, "--json", str(file), "--plot", str(plot)])
    assert json.loads(file.read_text()) == json.loads(json.dumps(output))
    assert [p["size"] for p in output["rows"]["points"]] == [600, 900, 1500]
    assert {p["rows"] for p in output["parameters"]["points"]} == {1024}
    for part in ("rows", "parameters"):
        points = output[part]["points"]
        assert all(p["seconds"] > 0 for p in points)
        assert output[part]["slope"] == pytest.approx(bench.slope(points))
        assert output[part]["upper"] == pytest.approx(bench.slope(points[1:]))
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def memory(script: Callable[[str], ModuleType]) -> ModuleType:
    """The part about memory."""
    return script("bench.scaling_memory")


@pytest.fixture
def busy(script: Callable[[str], ModuleType]) -> ModuleType:
    """The part beside a busy process."""
    return script("bench.scaling_busy")


@LINUX
def test_peak_memory_is_that_of_the_training(
    bench: ModuleType, memory: ModuleType, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CASES", (("tiny", (500, 16, 3), 20_000, 64, "float32", 0.2),))
    (row,) = bench.main(["--only", "memory", "--device", device])["memory"]
    assert row["data"] == 4 * 20_000 * 501
    assert row["parameters"] == 4 * gpumlp.MLP([500, 16, 3], device="numpy").n_params
    assert row["activations"] == 4 * 64 * 519
    assert row["ok"] and row["idle"] + row["data"] <= row["peak"]
    wanted = row["idle"] + row["data"] + 5 * row["parameters"] + 3 * row["activations"] + 60_000_000
    assert row["allowed"] == wanted


@LINUX
def test_too_much_memory_is_a_failure(
    memory: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "CASES", (("tiny", (5, 3), 1024, 64, "uint8", None),))
    monkeypatch.setattr(memory, "FREE_BYTES", -(10**12))
    (row,) = memory.memory("numpy", quick=True)
    assert not row["ok"] and "FAIL" in capsys.readouterr().out


def test_without_proc_it_says_so(
    memory: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert memory.memory("numpy", quick=True) == []
    assert "only Linux has" in capsys.readouterr().out


def test_the_busy_process_is_ended(busy: ModuleType) -> None:
    with pytest.raises(KeyError), busy.busy_core() as process:
        assert process.poll() is None
        raise KeyError
    assert process.returncode is not None


def test_beside_a_busy_process(
    bench: ModuleType, busy: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(busy, "SHAPES", (((6, 8, 3), 16, 20),))
    monkeypatch.setattr(busy, "PHASE_SECONDS", 0)
    monkeypatch.setattr(busy, "installed", lambda name: True)
    for seconds, ok in ((1e3, True), (1e-9, False)):  # a peer that is sure to be slower, and one faster
        monkeypatch.setattr(busy, "with_torch", lambda *_, seconds=seconds: lambda: (seconds, 0.0))
        (result,) = bench.main(["--busy", "--repeats", "2", "--device", "numpy"])["busy"]
        ours, theirs = result["rows"].values()
        assert theirs["slowdown"] == 1 and theirs["busy"] == pytest.approx(seconds / 20)
        assert result["ratio"] == pytest.approx(ours["busy"] / theirs["busy"])
        assert result["ok"] is ok
        assert ("pass" if ok else "FAIL") in capsys.readouterr().out


def test_help_and_bad_arguments(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status, text in (
        (["--help"], 0, bench.__doc__.splitlines()[0]),
        (["--only", "memory", "--plot", "x.png"], 2, "--plot draws rows and parameters"),
    ):
        with pytest.raises(SystemExit) as end:
            bench.main(arguments)
        streams = capsys.readouterr()
        assert end.value.code == status and text in streams.out + streams.err
    with pytest.raises(SystemExit, match="error"):
        bench.main(["--device", "abacus"])
