"""Run the native executor's C++ under GCC's sanitizers and count what they report.

The runtime and all kernels are compiled anew with -fsanitize=address,undefined, then with
-fsanitize=thread, into a cache of their own, and Python runs with the sanitizer's library loaded first.  The
work: trainings of several shapes, data types and rules, predictions from several threads at once, `update` on
large arrays, and (not under ThreadSanitizer, which does not support it) children of fork.  NumPy's arrays
come from the intercepted malloc, so a read or write behind one of them is seen.  OMP_NUM_THREADS sets the
number of the executor's threads.  The exit status is 1 if anything was reported.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
KINDS = {
    "address,undefined": ("libasan.so", "ASAN_OPTIONS", "detect_leaks=0:halt_on_error=0"),
    "thread": ("libtsan.so", "TSAN_OPTIONS", "halt_on_error=0"),
}
SHAPES = [(32, 16, 2), (8, 64, 64, 2), (64, 128, 10), (200, 70, 33, 10), (5, 1, 1)]


# ---- the work, in a process with the sanitizer -------------------------------------------------------------
def work(forks: bool) -> None:
    """Print the number of trainings, steps and compiled libraries."""
    import threading

    import numpy as np

    import gpumlp
    from gpumlp.backends.native import build
    from gpumlp.backends.native.cache import directory

    build.COMPILE_SECONDS = 600.0
    rng = np.random.default_rng(0)
    trainings = steps = 0
    rules = list(gpumlp.optimizers.OPTIMIZERS)
    for number, (sizes, rule) in enumerate((s, r) for s in SHAPES for r in rules):
        rows, batch = 150 + 13 * number, (7, 64, 100)[number % 3]
        X, y = rng.normal(size=(rows, sizes[0])), rng.integers(0, sizes[-1], rows)
        dtype = "float64" if number % 2 else "float32"
        loss = "softmax_cross_entropy" if sizes[-1] > 1 else "squared_error"
        activation = ("relu", "tanh", "gelu", "sigmoid", "elu")[number % 5]
        model = gpumlp.MLP(
            list(sizes), activation, dropout=0.2 * (number % 3), seed=number, device="native", dtype=dtype
        )
        clip = None if number % 2 else 1.0
        trainer = gpumlp.Trainer(model, loss=loss, optimizer=rule, batch_size=batch, clip_norm=clip)
        epochs = 3
        trainer.fit(X, y, epochs=epochs, progress=False)
        trainings += 1
        steps += epochs * -(-rows // batch)
        threads = [threading.Thread(target=model.predict, args=(X,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if forks:
            pid = os.fork()
            if pid == 0:
                model.predict(X)
                trainer.fit(X, y, epochs=1, progress=False)
                os._exit(0)
            if os.waitpid(pid, 0)[1]:
                raise SystemExit("a child of fork failed")
    large = np.ones(400_000, np.float32)
    for rule in (gpumlp.SGD(), gpumlp.Adam()):
        rule.update(large, large.copy())
    print(trainings, steps, len(list(directory().glob("*.so"))))


# ---- outside -----------------------------------------------------------------------------------------------
def library(name: str) -> str:
    """Path of a sanitizer's library; ends the program if the compiler has none."""
    command = ["g++", f"-print-file-name={name}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        raise SystemExit(f"error: g++ has no {name}")
    return str(Path(found).resolve())


def run(kind: str) -> int:
    """Number of reports."""
    name, variable, options = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/report"
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONMALLOC": "malloc",
            "CXX": f"env -u LD_PRELOAD g++ -g -fno-omit-frame-pointer -fsanitize={kind}",
            "GPUMLP_CACHE_DIR": f"{folder}/cache",
            variable: f"{options}:log_path={log}",
            "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={log}",
        }
        command = [sys.executable, __file__, "--work", *(["--forks"] if kind != "thread" else [])]
        if shutil.which("setarch"):  # ThreadSanitizer wants the usual addresses
            command = ["setarch", "-R", *command]
        start = time.monotonic()
        environment["LD_PRELOAD"] = library(name)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
        text = "".join(path.read_text(errors="replace") for path in Path(folder).glob("report*"))
        if done.returncode and not text:
            raise SystemExit(f"error: the work failed under -fsanitize={kind}:\n{done.stderr[-3000:]}")
        reports = re.findall(r"(?:ERROR|WARNING): \w+Sanitizer.*|.*runtime error:.*", text)
        trainings, steps, libraries = done.stdout.split()[-3:] if done.returncode == 0 else ("?",) * 3
        print(
            f"-fsanitize={kind}: {trainings} trainings, {steps} steps, {libraries} libraries, "
            f"{seconds:.0f} s: {len(reports)} reports"
        )
        for line in sorted(set(reports)):
            print(f"  {line}")
        if reports:
            print(text[:4000])
        return len(reports)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=list(KINDS), help="one of the two runs")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--forks", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.forks)
        return
    sys.exit(sum(run(kind) for kind in ([args.only] if args.only else KINDS)) > 0)


if __name__ == "__main__":
    main()
