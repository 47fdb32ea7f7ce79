"""Kill one of several ranks of ``gpumlp train`` at random moments, resume, and compare the final bits.

A training on ranks, with a checkpoint after every epoch, is started; after a random time one of the ranks,
drawn too, gets SIGKILL.  The launcher must end, with an error, and no rank may be left; checkpoint and model
file must be readable if they are there.  A few kills later the training is resumed, on another number of
ranks, until it ends: model and figures must be those of a training that nobody has killed, and no other file
may be left.  The exit status is 1 at the first thing that is otherwise.

    python scripts/kill_ranks.py --kills 200
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import gpumlp

REPOSITORY = Path(__file__).resolve().parent.parent
#: one rank: leaves its process number, so that it can be killed
RANK = """
import os, pathlib, sys
from gpumlp import distributed
rank = distributed.launched().rank
pathlib.Path(f"rank{rank}.part").write_text(str(os.getpid()))
os.replace(f"rank{rank}.part", f"rank{rank}")
from gpumlp.cli import main
sys.exit(main())
"""
PATIENCE = 240.0  # seconds; the machine may be busy
SLEEP = 0.01
IN_A_ROW = 4  # at most so many kills of a training before it may end
AGAIN = (1, 2, 4)  # numbers of ranks that end it


class Job:
    """Trainings in a folder of their own.

    Parameters
    ----------
    folder : Path
    ranks : int
        Of those that are killed.
    seed : int
        Of moments and victims.
    epochs : int
    """

    def __init__(self, folder: Path, ranks: int = 2, seed: int = 0, epochs: int = 100) -> None:
        launcher = shutil.which(
            "mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        if launcher is None:
            raise SystemExit("there is no mpiexec: pip install 'gpumlp[distributed]'")
        self.launcher, self.folder, self.ranks, self.draw = launcher, folder, ranks, random.Random(seed)
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(600, 12)).astype(np.float32)
        np.savez(folder / "rows.npz", X=X, y=(X[:, 0] * X[:, 1] + X[:, 2] > 0).astype(np.int64))
        options = "--hidden 64,32 --dropout 0.2 --schedule cosine --batch-size 64 --device cpu --quiet --json"
        self.words = ["train", "rows.npz", "--epochs", str(epochs), *options.split(), "-o", "model.npz"]
        self.ends: Counter[str] = Counter()
        start = time.monotonic()
        self.whole, self.seconds = self.finish(ranks), time.monotonic() - start

    # ---- starting and ending -------------------------------------------------------------------------------
    def start(self, ranks: int) -> subprocess.Popen[str]:
        """The training under mpiexec (1: without), resumed if it can be."""
        for name in self.folder.glob("rank*"):
            name.unlink()
        launcher = [self.launcher, "-n", str(ranks)] if ranks > 1 else []
        path = os.pathsep.join(p for p in (str(REPOSITORY), os.environ.get("PYTHONPATH", "")) if p)
        return subprocess.Popen(
            [*launcher, sys.executable, "-c", RANK, *self.words, "--checkpoint", "state.npz", "--resume"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, ranks: int) -> str:
        """Let the training end; a digest of its model and figures.  Its files are removed."""
        out, errors = self._end(self.start(ranks))
        require(bool(out), f"resumed on {ranks} ranks it failed:\n{errors}")
        model = gpumlp.load(self.folder / "model.npz", "cpu")
        figures = model.extra["training"]["figures"]
        left = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("rank"))
        require(left == ["model.npz", "rows.npz", "state.npz"], f"there are other files: {left}")
        for name in ("model.npz", "state.npz"):
            (self.folder / name).unlink()
        return hashlib.sha256(model.flat.tobytes() + repr(figures).encode()).hexdigest()

    def _end(self, job: subprocess.Popen[str]) -> tuple[str, str]:
        """What it printed; nothing if it failed."""
        try:
            out, errors = job.communicate(timeout=PATIENCE)  # all ranks have closed their ends
        except subprocess.TimeoutExpired:
            job.kill()
            raise SystemExit("a job hangs") from None
        return ("" if job.returncode else out), errors

    def kill(self) -> bool:
        """Kill a rank at a random moment of the training; False if it had ended by then."""
        before, victim, job = self._epoch(), self.draw.randrange(self.ranks), self.start(self.ranks)
        until = time.monotonic() + self.draw.uniform(0, self.seconds)
        path = self.folder / f"rank{victim}"
        while (time.monotonic() < until or not path.exists()) and job.poll() is None:
            time.sleep(SLEEP)
        ended = job.poll() is not None
        if not ended:
            os.kill(int(path.read_text()), signal.SIGKILL)
        out, errors = self._end(job)
        require(not (ended and not out), f"it failed before the kill:\n{errors}")
        after = self._epoch()
        require(after >= before, f"the checkpoint went back from epoch {before} to {after}")
        if (self.folder / "model.npz").exists():
            gpumlp.load(self.folder / "model.npz", "cpu")
        how = "after its end" if out else "before an epoch was done" if after == before else "between epochs"
        self.ends[how] += 1
        return not out

    def _epoch(self) -> int:
        """Of the checkpoint; an error if the file is damaged."""
        path = self.folder / "state.npz"
        return gpumlp.Trainer.load(path, "cpu").epoch if path.exists() else 0

    def run(self, kills: int) -> None:
        """Kill so often, and compare."""
        while kills:
            for _ in range(min(kills, self.draw.randint(1, IN_A_ROW))):
                kills -= self.kill()
            # one process that begins, instead of going on, has no ranks, and rounds otherwise
            ranks = self.draw.choice(AGAIN) if self._epoch() else self.ranks
            require(self.finish(ranks) == self.whole, f"other bits, after resuming on {ranks} ranks")
            self.ends[f"resumed on {ranks}"] += 1


def require(good: bool, message: str) -> None:
    """End the program if something is not as it should be."""
    if not good:
        raise SystemExit(message)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    start, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), arguments.ranks, arguments.seed)
        print(f"a training that nobody kills takes {job.seconds:.1f} s", flush=True)
        while done < arguments.kills:
            now = min(10, arguments.kills - done)
            job.run(now)
            done += now
            ends = ", ".join(f"{name} {n}" for name, n in sorted(job.ends.items()))
            print(f"{done} kills in {time.monotonic() - start:.0f} s: {ends}", flush=True)
    print(f"{done} kills: no hang, no damaged file, the same bits")


if __name__ == "__main__":
    main()
