"""Small data files, and the command line run in this process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gpumlp.cli import main

DEVICE = os.environ.get("GPUMLP_TEST_DEVICE", "cpu").split(",")[0]


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """run("train", ...) -> Result; the current directory is the test's own."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Result:
        words = tuple(map(str, words))
        device = (
            ("--device", DEVICE)
            if words[:1] and words[0] in ("train", "tune", "evaluate", "predict") and "--device" not in words
            else ()
        )
        capsys.readouterr()
        code = main([*words, *device])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def fails(run):
    """fails(words, ...) -> the error message, after checking that it is one line on stderr."""

    def call(*words: object) -> str:
        result = run(*words)
        assert result.code == 2, (result.out, result.err)
        assert result.err.startswith("gpumlp: error: ")
        assert result.err.count("\n") == 1
        assert "Traceback" not in result.err
        return result.err

    return call


@pytest.fixture
def flowers(tmp_path) -> Path:
    """120 rows, three classes by text, two informative columns and a constant one."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 120)
    x = rng.normal(0, 0.3, (120, 2)) + np.array([[0, 0], [3, 0], [0, 3]])[kind]
    names = ("iris, blue", "rose", "tulip")  # one with a delimiter, so that it is quoted
    lines = ["width,height,seven,kind"]
    lines += [f'{a:.4f},{b:.4f},7,"{names[k]}"' for (a, b), k in zip(x, kind, strict=True)]
    return _write(tmp_path / "flowers.csv", lines)


@pytest.fixture
def prices(tmp_path) -> Path:
    """200 rows of price = 1000 + 300 size - 100 age, on scales that need standardising."""
    rng = np.random.default_rng(1)
    size, age = rng.uniform(50, 200, 200), rng.uniform(0, 1e-3, 200)
    price = 1000 + 300 * size - 1e7 * age
    return _write(
        tmp_path / "prices.csv",
        [
            "size;age;price",
            *(
                f"{s!r};{a!r};{p!r}"
                for s, a, p in zip(size.tolist(), age.tolist(), price.tolist(), strict=True)
            ),
        ],
    )


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path
