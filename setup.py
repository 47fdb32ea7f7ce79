"""Only the packages: the top-level `kernels/` is installed as `gpumlp.kernels`, which pyproject.toml could
only say with a list of all packages by hand."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["gpumlp", "gpumlp.*"]),
        *(f"gpumlp.kernels.{name}" for name in find_packages("kernels")),
    ],
    package_dir={"gpumlp": "gpumlp", "gpumlp.kernels": "kernels"},
)
