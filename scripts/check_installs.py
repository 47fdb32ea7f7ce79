"""Install gpumlp in every way there is; see that it is whole, and that nothing else can be imported with it.

Ways: the checkout itself, an editable install, a wheel, a source distribution, and an unpacked source
distribution used as a checkout; each in a virtual environment of its own.  Nothing but setuptools is
downloaded: NumPy is the one of the Python that runs this script.

    python scripts/check_installs.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")

#: run in each environment; argument: where the package's files must be
PROBE = """
import importlib, importlib.util, pathlib, pkgutil, sys
import numpy as np
import gpumlp
from gpumlp.datasets import load_digits
home = pathlib.Path(sys.argv[1]).resolve()
file = pathlib.Path(gpumlp.__file__).resolve()
assert home in file.parents, f"gpumlp was imported from {file}, expected from {home}"
for other in ("tests", "scripts", "docs", "gpumlp"):
    assert importlib.util.find_spec(f"gpumlp.{other}") is None, f"gpumlp.{other} can be imported"
found = [m.name for m in pkgutil.walk_packages(gpumlp.__path__, "gpumlp.")]
for name in ("gpumlp.kernels.losses", "gpumlp.kernels.optimizers.adam", "gpumlp.training.trainer"):
    assert name in found, f"{name} is missing"
assert importlib.import_module("gpumlp.kernels.optimizers.adam").Adam in gpumlp.Adam.__mro__
X, y = load_digits()
model = gpumlp.MLP([64, 16, 10], device="cpu")
trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer=gpumlp.Adam(lr=1e-2))
history = trainer.fit(X, y, epochs=3, progress=False)
assert history.loss[-1] < history.loss[0], history.loss
print(len(found), "modules,", model.backend.name)
"""


def run(*command: object, cwd: Path, path: Path | None = None) -> str:
    """Output of a command; an error that shows it if it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:4]))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def environment(work: Path, name: str, *installed: object) -> Path:
    """Python of a new virtual environment that also finds this Python's NumPy."""
    folder = work / name
    venv.create(folder, with_pip=bool(installed))
    python = folder / "bin" / "python"
    if installed:
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", *installed, cwd=work)
    only_numpy = folder / "numpy"
    only_numpy.mkdir()
    for part in Path(np.__file__).parents[1].glob("numpy*"):
        (only_numpy / part.name).symlink_to(part)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=work).strip()
    (Path(site) / "numpy.pth").write_text(f"{only_numpy}\n")
    return python


def sources(root: Path) -> set[str]:
    """Files of the package in a checkout, by their names in a wheel."""
    found = {f"gpumlp/kernels/{p.relative_to(root / 'kernels')}" for p in (root / "kernels").rglob("*.py")}
    for path in (root / "gpumlp").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path.parent != root / "gpumlp" / "kernels":
            found.add(str(path.relative_to(root)))
    return found


def wheel(python: Path, source: Path, out: Path) -> set[str]:
    """Names of the package's files in the wheel that is made of `source`."""
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", out, source, cwd=out.parent)
    (made,) = out.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def main() -> None:
    """Build, install, import and train; SystemExit or AssertionError for what is wrong."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        tree = work / "checkout"
        shutil.copytree(ROOT, tree, ignore=_LEFT_OUT)
        wanted = sources(tree)
        builder = environment(work, "builder", "setuptools>=77")
        build = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
        run(builder, "-c", build, work / "sdist", cwd=shutil.copytree(tree, work / "for_sdist"))
        (sdist,) = (work / "sdist").glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(work / "unpacked", filter="data")
        (unpacked,) = (work / "unpacked").iterdir()
        for name in ("kernels", "gpumlp", "tests", "docs", "scripts"):
            files = [p for p in (tree / name).rglob("*") if p.is_file()]
            missing = [
                str(p.relative_to(tree)) for p in files if not (unpacked / p.relative_to(tree)).exists()
            ]
            assert not missing, f"not in the source distribution: {missing}"
        for source in (tree, unpacked):
            held = wheel(
                builder, shutil.copytree(source, work / f"{source.name}-wheel"), work / f"{source.name}-out"
            )
            assert held == wanted, f"wheel of {source.name}: {sorted(held ^ wanted)} too many or too few"
        (made,) = (work / "checkout-out").glob("*.whl")
        for name, installed, path in (
            ("from the checkout", [], tree),
            ("editable install", ["-e", tree], None),
            ("wheel", [made], None),
            ("source distribution", [sdist], None),
            ("unpacked source distribution", [], unpacked),
        ):
            python = environment(work, name.replace(" ", "-"), *installed)
            home = path or (tree if "-e" in installed else python.parents[1])
            print(f"{name}: {run(python, '-c', PROBE, home, cwd=work, path=path).strip()}")


if __name__ == "__main__":
    main()
