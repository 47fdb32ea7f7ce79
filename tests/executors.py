"""The executors that tests run on."""

from __future__ import annotations

import os

import gpumlp


def _devices() -> list[str]:
    """Executors named in GPUMLP_TEST_DEVICE (an unusable one then fails its tests), else all usable."""
    wanted = [name.strip() for name in os.environ.get("GPUMLP_TEST_DEVICE", "").split(",") if name.strip()]
    if wanted:
        return wanted
    usable = []
    for name in ("numpy", "native", "cuda"):
        try:
            gpumlp.get_backend(name)
        except gpumlp.DeviceError:
            continue
        usable.append(name)
    return usable


DEVICES = _devices()
