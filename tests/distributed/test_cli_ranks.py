"""`mpiexec -n N gpumlp ...`: rank 0 prints and writes, all work, and an error of one is the end of all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ranks import TIMEOUT, environment, mpiexec

import gpumlp

HAND = ("--target", "kind", "--hidden", "8", "--epochs", "3", "--checkpoint", "c.npz")
RECIPE = ("--target", "kind", "--quality", "fast", "--n-networks", "2")
TUNE = ("--target", "kind", "--trials", "3", "--folds", "2", "--epochs", "3", "--width", "8")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(120, 2))
    lines = ["a,b,kind", *(f"{a},{b},{'up' if a * b > 0 else 'down'}" for a, b in rows.tolist())]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def call(folder: Path, n: int, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line on `n` ranks; 1: without a launcher."""
    launcher = [mpiexec(), "-n", str(n)] if n > 1 else []
    return subprocess.run(
        [*launcher, sys.executable, "-m", "gpumlp", *words],
        check=False,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def parameters(path: Path) -> np.ndarray:
    model = gpumlp.load(path, "cpu")
    ensemble = getattr(model, "ensemble_", model)
    return np.concatenate([each.flat for each in getattr(ensemble, "models", [ensemble])])


def test_rows_are_shared_and_a_checkpoint_goes_on_without_ranks(table: Path) -> None:
    first = call(table, 2, "train", "t.csv", *HAND, "-o", "2.npz")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("data      t.csv") == first.stdout.count("model saved to 2.npz") == 1
    more = (*HAND[:4], "--epochs", "5", *HAND[6:], "--resume")
    results = [call(table, n, "train", "t.csv", *more, "-o", f"more{n}.npz") for n in (1, 3)]
    assert [each.returncode for each in results] == [0, 0], results
    assert "3 of 5 epochs were done" in results[0].stdout
    assert "5 of 5 epochs were done" in results[1].stdout
    (table / "c.npz").unlink()
    assert call(table, 4, "train", "t.csv", *more, "-o", "whole.npz").returncode == 0
    for name in ("more1.npz", "more3.npz"):
        assert np.array_equal(parameters(table / name), parameters(table / "whole.npz"))


@pytest.mark.parametrize("words", [("train", *RECIPE), ("tune", *TUNE)], ids=["recipe", "tune"])
def test_networks_are_spread(table: Path, words: tuple[str, ...]) -> None:
    if words[0] == "train":
        pytest.importorskip("sklearn")
    outs = []
    for n in (1, 2):
        result = call(table, n, words[0], "t.csv", *words[1:], "-o", f"{n}.npz", "--json")
        assert result.returncode == 0, result.stderr
        outs.append(result.stdout.count("\n"))
    assert outs == [1, 1]
    assert np.array_equal(parameters(table / "1.npz"), parameters(table / "2.npz"))


AGREED = {
    "of all": ((*HAND, "--target", "kin"), "error: 't.csv' has no target column: unknown column 'kin'"),
    "of words": ((*HAND, "--epochs", "none"), "error: argument --epochs"),
    "of the first": ((*HAND, "-o", "nowhere/m.npz"), "error: cannot write the model to 'nowhere/m.npz'"),
    "of another": ((*HAND, "--register", "broken"), "error: rank 1 of 3: "),
    "without ranks": ((*HAND, "--checkpoint", "alone.npz", "--resume"), "was written without ranks"),
    "clocks": ((*RECIPE, "--time-limit", "9"), "error: --time-limit is for one process"),
}


@pytest.mark.parametrize("which", AGREED)
def test_before_the_training_one_message(table: Path, which: str) -> None:
    words, reason = AGREED[which]
    broken = "from gpumlp import distributed\nassert not distributed.rank(), 'the disk is full'\n"
    (table / "broken.py").write_text(broken)
    if which == "without ranks":
        assert call(table, 1, "train", "t.csv", *HAND, "--checkpoint", "alone.npz").returncode == 0
    result = call(table, 3, "train", "t.csv", *words)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("gpumlp: ") == 1 and "Traceback" not in result.stderr, result.stderr
    assert reason in result.stderr


def test_while_training_one_message_and_the_end(table: Path) -> None:
    (table / "full.py").write_text(
        "import gpumlp.cli.checkpoints as c\nfrom gpumlp import distributed\n"
        "def keep(self, trainer, history):\n"
        "    if distributed.rank() == 2: raise OSError(28, 'No space left on device', 'c.npz')\n"
        "c.Checkpoints.keep = keep\n"
    )
    result = call(table, 3, "train", "t.csv", *HAND, "--register", "full")
    assert result.returncode != 0 and "Traceback" not in result.stderr
    told = [line for line in result.stderr.splitlines() if line.startswith("gpumlp: ")]
    assert told == ["gpumlp: rank 2 of 3 ends the job: 'c.npz': No space left on device"], result.stderr


def test_what_needs_no_ranks_is_done_once(table: Path) -> None:
    assert call(table, 1, "train", "t.csv", *HAND).returncode == 0
    result = call(table, 2, "evaluate", "gpumlp-model.npz", "t.csv")
    assert result.returncode == 0 and result.stdout.count("data      t.csv") == 1
    result = call(table, 2, "evaluate", "gpumlp-model.npz", "no.csv")
    assert result.returncode == 2 and result.stderr.count("gpumlp: error: ") == 1, result.stderr
