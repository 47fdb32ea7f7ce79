"""What is printed: a broken output loses nothing, names cannot steer a terminal, no traceback is shown."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import gpumlp
from gpumlp.cli import models
from gpumlp.model.saved import save_model

GPUMLP = f"{sys.executable} -m gpumlp"
TRAIN = f"{GPUMLP} train --epochs 2 --device numpy --hidden 8 --out m.npz"


def shell(command: str, folder) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (f"{TRAIN} | head -1", 141, ""),
        (
            f"{TRAIN} --quiet > /dev/full",
            2,
            "standard output: No space left on device (already saved: m.npz)",
        ),
        (f"{TRAIN} > /dev/full", 2, "standard output: No space left on device (already saved: m.npz)"),
        (f"{TRAIN} >&-", 2, "standard output: Bad file descriptor (already saved: m.npz)"),
        (f"{TRAIN} 2> /dev/full", 0, ""),
        (f"{TRAIN} 2>&-", 0, ""),
        (f"{TRAIN} <&- >&- 2>&-", 2, ""),
    ],
)
def test_a_broken_output_does_not_lose_the_model(tmp_path, command, code, message):
    if "/dev/full" in command and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    done = shell(command, tmp_path)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert done.stderr == (f"gpumlp: error: {message}\n" if message else "")
    assert gpumlp.load(tmp_path / "m.npz", "numpy").extra["training"]["figures"].keys() == {
        "train",
        "validation",
        "test",
    }


@pytest.mark.skipif(not os.path.exists("/proc/self/fd/1"), reason="needs /proc")
def test_no_file_becomes_standard_output(tmp_path):
    code = "import os, sys; from gpumlp.cli import main; main([]); "
    code += "sys.stderr.write(os.readlink('/proc/self/fd/1'))"
    done = shell(f'{sys.executable} -c "{code}" >&-', tmp_path)
    assert done.stderr.endswith("/dev/null")


@pytest.mark.parametrize("words", ["predict m.npz", "info m.npz", "info", "evaluate m.npz"])
def test_a_broken_output_of_other_commands_is_told(tmp_path, words):
    assert shell(TRAIN, tmp_path).returncode == 0
    for redirection, code in (("> /dev/full", 2), (">&-", 2), ("| true", 141)):
        done = shell(f"{GPUMLP} {words} {redirection}", tmp_path)
        # a reader that is gone is noticed only if something is written after that
        assert done.returncode in (code, 0 if code == 141 else code)
        assert done.stderr.count("\n") == (code == 2) and "Traceback" not in done.stderr


def test_the_model_is_saved_before_anything_is_printed(tmp_path, run, monkeypatch):
    seen = []

    class Watch:
        def write(self, text: str) -> int:
            if "accuracy" in text or "done" in text:
                seen.append((tmp_path / "m.npz").exists())
            return len(text)

        def flush(self) -> None:
            pass

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdout", Watch())
    run("train", "--epochs", 1, "--hidden", 8, "--out", "m.npz")
    assert len(seen) >= 2 and all(seen)


def test_a_failing_evaluation_does_not_lose_the_model(run, monkeypatch):
    def fail(*arguments, **more):
        raise MemoryError("of the device")

    monkeypatch.setattr(gpumlp.Trainer, "evaluate", fail)
    result = run("train", "--epochs", 1, "--hidden", 8, "--out", "m.npz")
    assert result.code == 2 and "not enough memory" in result.err and "(already saved: m.npz)" in result.err
    assert gpumlp.load("m.npz", "numpy").extra["training"]["figures"] == {}


NASTY = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r"


def test_names_of_files_cannot_steer_a_terminal(tmp_path, run):
    rows = "".join(f"{n % 7},{n % 3},{n % 5},{'u' + NASTY if n % 2 else 'v'}\n" for n in range(60))
    (tmp_path / "x.csv").write_text(
        f'a{NASTY[:-1]},b,c{NASTY[:-1]},"t{NASTY[:-1]}"\n' + rows.replace("\r", "")
    )
    target = f"t{NASTY[:-1]}"
    results = [
        run(
            "train", "x.csv", "--target", target, "--drop", f"c{NASTY[:-1]}", "--epochs", 1, "--out", "m.npz"
        ),
        run("info", "m.npz"),
        run("evaluate", "m.npz", "x.csv"),
        run("train", "x.csv", "--target", "none"),
        run("train", "x.csv", "--target", f"a{NASTY}"),
        run("predict", f"m{NASTY}.npz", "x.csv"),
        run(f"tr{NASTY}"),
    ]
    assert [result.code for result in results] == [0, 0, 0, 2, 2, 2, 2]
    for result in results:
        for text in (result.out, result.err):
            assert not set(text) & set("\x1b\x07\x9b\u202e\r"), text
    assert r"\x1b[2J" in results[0].out and r"\x1b[2J" in results[2].out
    predicted = run("predict", "m.npz", "x.csv").out  # data, not a message: character by character
    assert f"u{NASTY[:-1]}\n" in predicted or "v\n" in predicted


def test_predictions_go_to_a_terminal_as_messages(tmp_path, run, monkeypatch):
    model = gpumlp.MLP([1, 2], device="numpy", init=0.0)
    model.output = "softmax"
    prep = {
        "task": "classification",
        "loss": "softmax_cross_entropy",
        "classes": ["\x1b[2J", "b"],
        "target": "t",
    }
    save_model(model, tmp_path / "m.npz", {"preparation": prep})
    np.save(tmp_path / "x.npy", np.ones((1, 1)))
    assert run("predict", "m.npz", "x.npy").out == "prediction\n\x1b[2J\n"
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    assert run("predict", "m.npz", "x.npy").out == "prediction\n\\x1b[2J\n"


def test_a_fault_of_the_program_is_told_without_a_traceback(run, monkeypatch):
    def fail(arguments):
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(models, "describe", fail)
    monkeypatch.setattr("gpumlp.cli.system.describe", fail)
    result = run("info", "my model.npz")
    assert result.code == 2 and result.err.count("\n") == 1 and "Traceback" not in result.err
    assert "this is a fault of gpumlp (KeyError: 'nobody thought of this'; " in result.err
    assert "Please report it, with the command: gpumlp info 'my model.npz'" in result.err


def test_a_name_that_is_too_long_is_found_before_the_training(run, tmp_path):
    result = run("train", "--epochs", 1, "--out", "x" * 260 + ".npz")
    assert result.code == 2 and "File name too long" in result.err and not result.out
    longest = "\u65e5" * 83 + ".npz"  # 253 bytes: fine, whatever the temporary name is
    assert run("train", "--epochs", 1, "--hidden", 8, "--out", longest).code == 0
    assert os.listdir(tmp_path) == [longest]


def test_many_columns(tmp_path, run):
    n = 20_000
    names = [f"c{j}" for j in range(n)]
    model = gpumlp.MLP([n, 1], device="numpy", init=0.0)
    prep = {"task": "regression", "loss": "squared_error", "features": names, "target": "t"}
    save_model(model, tmp_path / "m.npz", {"preparation": prep})
    rows = ["1," * n + "0"] * 3
    (tmp_path / "x.csv").write_text("\n".join([",".join([*reversed(names), "t"]), *rows]) + "\n")
    np.savez(tmp_path / "x.npz", X=np.ones((3, n)), feature_names=names[::-1])
    for table in ("x.csv", "x.npz"):
        result = run("predict", "m.npz", table)
        assert result.code == 0 and result.out == "prediction\n0\n0\n0\n"
    result = run("train", "x.csv", "--target", "c1x")
    assert len(result.err) < 2000 and "(20001)" in result.err
