"""Estimators that train on a Dask cluster, on the rows that its workers hold; see docs/distributed.md.

They are imported on first use: workers, which import this package as well, need neither scikit-learn nor
pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpumlp.dask.estimators import DaskMLPClassifier, DaskMLPRegressor

__all__ = ["DaskMLPClassifier", "DaskMLPRegressor"]


def __getattr__(name: str) -> Any:
    """The estimators."""
    if name not in __all__:
        raise AttributeError(f"module 'gpumlp.dask' has no attribute {name!r}")
    try:
        from gpumlp.dask import estimators
    except ImportError as error:
        if (error.name or "").startswith("gpumlp"):
            raise
        raise ImportError(
            f"gpumlp.dask needs Dask's arrays, data frames and scheduler, and scikit-learn ({error}); "
            "install them with: pip install 'gpumlp[dask]'"
        ) from None
    return getattr(estimators, name)


def __dir__() -> list[str]:
    return __all__
