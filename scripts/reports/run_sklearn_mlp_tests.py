"""Run scikit-learn's own tests of its perceptrons with gpumlp's estimators in their place.

    python scripts/reports/run_sklearn_mlp_tests.py [pytest options]

The tests come from the installed scikit-learn; the two classes are replaced before pytest imports them.
Nothing is copied.  `DESELECTED` lists what is left out and why.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

#: test -> why it cannot apply to another implementation
DESELECTED = {
    "test_gradient": "calls the private method _loss_grad_lbfgs with scikit-learn's own work arrays",
}


def main(options: list[str]) -> int:
    """Exit status of pytest."""
    if {"-h", "--help"} & set(options):
        print(__doc__.strip() if __doc__ else "")
        return 0
    os.environ.setdefault("SKLEARN_TESTS_GLOBAL_RANDOM_SEED", "42")  # their fixture global_random_seed
    import pytest
    import sklearn.neural_network

    import gpumlp

    sklearn.neural_network.MLPClassifier = gpumlp.MLPClassifier
    sklearn.neural_network.MLPRegressor = gpumlp.MLPRegressor
    root = Path(sklearn.__file__).parent
    tests = Path("neural_network", "tests", "test_mlp.py")  # relative to pytest's rootdir, as in its node ids
    for name, reason in DESELECTED.items():
        print(f"left out: {name}: {reason}")
    print(
        f"scikit-learn {sklearn.__version__}, gpumlp {gpumlp.__version__} "
        f"on {gpumlp.get_backend('auto').info()['executor']}"
    )
    skip = [part for name in DESELECTED for part in ("--deselect", f"{tests}::{name}")]
    return int(
        pytest.main(
            [
                str(root / tests),
                "-p",
                "no:cacheprovider",
                "-q",
                "--rootdir",
                str(root),
                "-o",
                "addopts=",
                *skip,
                *options,
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
