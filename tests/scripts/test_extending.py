"""docs/extending.md, followed by somebody who knows nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")

#: in the first process, after train.py: what the page says of pickles and files
BEFORE = """
import pickle

with open("models.pkl", "wb") as file:
    pickle.dump((model, trainer, gpumlp.MLPRegressor(Pinball(), (4,), "mish", max_iter=300).fit(X, y)), file)
np.savez("answers.npz", X=X, answers=model.predict(X))
rows = np.c_[X, y]
np.savetxt("table.csv", rows, delimiter=",", header="a,b,c,d,y", comments="")
"""
#: in the second process, before elsewhere.py, and after it
REFUSED = """
import gpumlp

for load, names in ((gpumlp.load, ["model.npz", "ensemble.npz"]), (gpumlp.Trainer.load, ["training.npz"])):
    for name in names:
        try:
            load(name)
        except gpumlp.ModelFileError as error:
            assert "'mish'" in str(error) and "gpumlp.register" in str(error), error
        else:
            raise AssertionError(f"{name} was loaded without what it needs")
"""
AFTER = """
import pickle
import shlex

import numpy as np
from gpumlp.cli import main

saved = np.load("answers.npz")
assert trainer.loss.name == "pinball" and trainer.objective.delta == 0.75
assert type(trainer.optimizer) is my_things.MyAdadelta and trainer.optimizer.rho == 0.95
for each in (trainer.model, models[0], pickle.load(open("models.pkl", "rb"))[0]):
    assert np.array_equal(each.predict(saved["X"]), saved["answers"])
for line in COMMANDS:
    assert main(shlex.split(line)[1:]) == 0, line
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run(folder: Path, program: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", program]
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]


def test_the_page(tmp_path: Path) -> None:
    """Trainer, estimators, fit_many, files, pickles and the command line; loaded in a new process."""
    pytest.importorskip("sklearn")
    things, train, elsewhere = blocks("python")
    assert [b.split("\n")[0].split(",")[0] for b in (things, train, elsewhere)] == [
        "# my_things.py",
        "# train.py",
        "# elsewhere.py",
    ]
    (tmp_path / "my_things.py").write_text(things, encoding="utf-8")
    run(tmp_path, train + BEFORE)
    commands = [line for block in blocks("console") for line in block.strip().split("\n")]
    assert len(commands) == 3
    run(tmp_path, "\n".join([REFUSED, elsewhere, f"COMMANDS = {commands!r}", AFTER]))
