"""Estimators that train on a Dask cluster, on the rows that its workers hold; see docs/distributed.md."""

from __future__ import annotations

try:
    import dask.array
    import dask.dataframe  # noqa: F401
    import distributed  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"gpumlp.dask needs Dask's arrays, data frames and scheduler ({error}); install them with: "
        "pip install 'gpumlp[dask]'"
    ) from None

from gpumlp.dask.estimators import DaskMLPClassifier, DaskMLPRegressor

__all__ = ["DaskMLPClassifier", "DaskMLPRegressor"]
