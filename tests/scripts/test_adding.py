"""The list of docs/architecture.md, "Adding things", is complete: a copy of the package gets a rule, an
activation and a loss by these edits alone, and the tests that go over all of them pass there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

RULE = '''"""Signum."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from gpumlp.kernels.optimizers.rule import Rule


@dataclass
class Signum(Rule):
    """``m = beta m + (1 - beta) g;  w -= lr sign(m)`` (Bernstein et al. 2018).

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0])
    >>> gpumlp.Signum(lr=0.5).update(w, np.array([2.0]))
    >>> w
    array([0.5])
    """

    name: ClassVar[str] = "signum"
    lr: float = 0.01
    beta: float = 0.9
    body: ClassVar[str] = """m = beta * m + gain * grad;
const C delta = lr * ((m > C(0) ? C(1) : C(0)) - (m < C(0) ? C(1) : C(0)) + (m - m));"""

    def state_names(self):
        return ("m",)

    def constants(self):
        return {"beta": self.beta, "gain": 1 - self.beta}

    def rule(self, grad, lr, m, beta, gain):
        m *= beta
        m += gain * grad
        return lr * (np.sign(m) + (m - m))
'''
RULE_ORACLE = """def signum(w, g, s, t, lr, o):
    s["m"] = o.beta * s.get("m", 0) + (1 - o.beta) * g
    return w - lr * np.sign(s["m"])


RULES = {
    "signum": signum,"""
ACTIVATION = """Activation(
            "hard_tanh",
            "z < C(-1) ? C(-1) : (z > C(1) ? C(1) : z)",
            "(a > C(-1) && a < C(1) ? C(1) : C(0))",
            lambda z: np.clip(z, -1, 1),
            lambda a: (np.abs(a) < 1).astype(a.dtype),
            onnx=lambda graph, z: graph.node("Clip", z, graph.constant(-1.0), graph.constant(1.0)),
        ),
        Activation(
            "relu","""
ACTIVATION_ORACLE = """ACTIVATIONS = {
    "hard_tanh": (lambda z: min(max(z, -1.0), 1.0), lambda z: 1.0 if abs(z) < 1 else 0.0),"""
LOSS = """Loss(
            "pseudo_huber",
            f"sqrt(C(1) + {ERROR} * {ERROR}) - C(1)",
            f"{_D}\\nconst C gc = dc * rsqrt(C(1) + dc * dc);",
            lambda z, y, delta: (np.sqrt(1 + (z - y) ** 2) - 1, (z - y) / np.sqrt(1 + (z - y) ** 2)),
        ),
        Loss(
            "poisson","""
LOSS_ORACLE = """LOSSES = {
    "pseudo_huber": _mean_of(lambda z, y, _: (math.hypot(1, z - y) - 1, (z - y) / math.hypot(1, z - y))),"""
#: file -> (text, what stands in its place afterwards)
EDITS = {
    "kernels/optimizers/__init__.py": [("RULES = {", 'RULES = {\n    "signum": ("Signum",),')],
    "kernels/activations.py": [('Activation(\n            "relu",', ACTIVATION)],
    "kernels/formulas.py": [('Loss(\n            "poisson",', LOSS)],
    "docs/api/optimizers.md": [
        (
            "::: gpumlp.kernels.optimizers.lion.Lion",
            "::: gpumlp.kernels.optimizers.signum.Signum\n\n::: gpumlp.kernels.optimizers.lion.Lion",
        )
    ],
    "docs/formulas.md": [
        ("| Lion (`lion`)", "| Signum (`signum`) | m; lr sign(m) | | `signum.py` | same |\n| Lion (`lion`)"),
        ("| relu |", "| hard_tanh | z, from -1 to 1 | 1 or 0 |\n| relu |"),
        ("| squared_error |", "| pseudo_huber | √(1 + d²) less 1 | d / √(1 + d²) |\n| squared_error |"),
    ],
    "tests/oracles.py": [
        ("RULES = {", RULE_ORACLE),
        ("ACTIVATIONS = {", ACTIVATION_ORACLE),
        ("\nLOSSES = {", f"\n{LOSS_ORACLE}"),
    ],
    "tests/rules.py": [
        ('= {\n    "sgd": [', '= {\n    "signum": [{"lr": 0.05}, {"lr": 0.05, "beta": 0.5}],\n    "sgd": [')
    ],
}
TESTS = (
    "test_checks.py",
    "kernels/test_activations.py",
    "kernels/test_losses.py",
    "kernels/test_optimizer_kernels.py",
    "optimizers/test_formulas.py",
    "optimizers/test_new_rule.py",
    "optimizers/test_update.py",
    "optimizers/test_update_errors.py",
    "plans/test_gradients.py",
)


def test_the_list_is_complete(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Adding things")[1].split("\n## ")[0]
    listed = {
        f for f in re.findall(r"`([\w/]+\.(?:py|md))`", section.split("What is missing")[0]) if "/" in f
    }
    assert listed - {"tests/scripts/test_adding.py"} == {*EDITS, "kernels/optimizers/NAME.py"}

    for folder in ("gpumlp", "kernels", "tests", "docs"):
        leave = shutil.ignore_patterns("__pycache__", "*.npz", "*.csv*")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "kernels" / "optimizers" / "signum.py").write_text(RULE, encoding="utf-8")
    for name, changes in EDITS.items():
        file = tmp_path / name
        content = file.read_text(encoding="utf-8")
        for old, new in changes:
            assert content.count(old) == 1, f"{name}: {old}"
            content = content.replace(old, new)
        file.write_text(content, encoding="utf-8")

    # what is about the new ones, on the NumPy executor; registered ones are tested on the others
    chosen = "(signum or hard_tanh or pseudo_huber or complete or oracle or option)"
    environment = {
        **{n: v for n, v in os.environ.items() if not n.startswith(("GPUMLP_", "PYTEST_"))},
        "PYTHONPATH": str(tmp_path),
        "GPUMLP_TEST_DEVICE": "numpy",
        "GPUMLP_TEST_SAMPLE": "6:0",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen]
    paths = [str(tmp_path / "tests" / name) for name in TESTS]
    settings: dict[str, Any] = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    ran = subprocess.run([*command, *paths], **settings, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert int(re.findall(r"(\d+) passed", ran.stdout)[0]) > 40
