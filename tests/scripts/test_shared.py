"""scripts/optimizer_paths.py against the textbook's formulas, and what all scripts share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

Script = Callable[[str], ModuleType]
ALL = (
    "optimizer_paths",
    "train_mnist",
    "airfoil",
    "california",
    "bench_kernels",
    "bench_training",
    "bench_scaling",
)


def textbook(rule: str, lr: float, steps: int) -> tuple[float, float]:
    """The last point of the walk down 0.1 x1^2 + 2 x2^2 from (-5, -2), by plain Python."""
    ends = []
    for start, curvature in ((-5.0, 0.2), (-2.0, 4.0)):
        x, v, s = start, 0.0, 0.0
        for t in range(1, steps + 1):
            g = curvature * x
            if rule == "gradient descent":
                x -= lr * g
            elif rule == "momentum":
                v = 0.5 * v + g
                x -= lr * v
            elif rule == "adagrad":
                s += g * g
                x -= lr * g / math.sqrt(s + 1e-6)
            elif rule == "rmsprop":
                s = 0.9 * s + 0.1 * g * g
                x -= lr * g / math.sqrt(s + 1e-6)
            else:
                v = 0.9 * v + 0.1 * g
                s = 0.999 * s + 0.001 * g * g
                x -= lr * (v / (1 - 0.9**t)) / (math.sqrt(s / (1 - 0.999**t)) + 1e-6)
        ends.append(x)
    return ends[0], ends[1]


def test_paths_are_those_of_the_textbook(script: Script, device: str, tmp_path: Path) -> None:
    file = tmp_path / "paths.png"
    paths = script("optimizer_paths").main(["--out", str(file), "--device", device])
    wanted = [
        ("gradient descent", 0.4),
        ("momentum", 0.6),
        ("adagrad", 0.4),
        ("adagrad", 2.0),
        ("rmsprop", 0.4),
        ("adam", 0.4),
    ]
    assert len(paths) == len(wanted)
    for (title, points), (rule, lr) in zip(paths.items(), wanted, strict=True):
        assert title.lower().startswith(rule) and title.endswith(f"lr {lr:g}")
        assert points.shape == (21, 2) and points[0].tolist() == [-5, -2]
        # float64; rounding errors of 20 contracting steps, relative to the start's magnitude
        np.testing.assert_allclose(points[-1], textbook(rule, lr, 20), rtol=0, atol=1e-13)
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ALL)
def test_help_names_the_device_option(script: Script, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = script(name)
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "--device" in text and module.__doc__.splitlines()[0] in text


@pytest.mark.parametrize("name", ["train_mnist", "airfoil", "california"])
def test_bad_data_files_are_named(script: Script, name: str, tmp_path: Path) -> None:
    main = script(name).main
    with pytest.raises(SystemExit, match=r"no file .*missing\.npz"):
        main([str(tmp_path / "missing.npz")])
    np.savez(tmp_path / "other.npz", z=np.zeros(3))
    with pytest.raises(SystemExit, match=r"has no array .*found z"):
        main([str(tmp_path / "other.npz")])
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(SystemExit, match="cannot be read"):
        main([str(tmp_path / "text.npz")])


def test_an_unwritable_figure_is_found_before_the_work(script: Script, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot write"):
        script("optimizer_paths").main(["--out", str(tmp_path / "nowhere" / "paths.png")])


def test_tools(script: Script, tmp_path: Path) -> None:
    tools = script("_tools")
    assert [tools.duration(s) for s in (2.5, 0.0125, 3.21e-6, 4e-9)] == [
        "2.5 s",
        "12.5 ms",
        "3.21 us",
        "4 ns",
    ]
    assert tools.table(["a", "b"], [["x", 1.5], ["long", 10]]).splitlines() == [
        "a       b",
        "----  ---",
        "x     1.5",
        "long   10",
    ]
    assert tools.summary([1.0, 2.0, 3.0, 4.0, 100.0]) == {"median": 3.0, "spread": 2 / 3}
    calls: list[str] = []
    made = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "abc"}
    times = tools.interleave(made, 3)
    assert "".join(calls) == "abcbcacab"
    assert times == {"a": [1.0, 6.0, 8.0], "b": [2.0, 4.0, 9.0], "c": [3.0, 5.0, 7.0]}
    tools.write_json(tmp_path / "x.json", {"k": [1, 2]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"k": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
