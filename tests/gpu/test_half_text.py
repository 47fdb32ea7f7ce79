"""CUDA text of kernels that store 16 bits; needs no device."""

from __future__ import annotations

import re
from typing import Any

import pytest
from gpumlp.kernels.activations import ACTIVATIONS, backward_kernel, forward_kernel
from gpumlp.kernels.losses import LOSSES, training_kernel
from gpumlp.kernels.rows import CAST, GATHER

from gpumlp.backends.cuda.text import Form, source
from gpumlp.optimizers import OPTIMIZERS

KERNELS = [
    *(rule(l1=1e-3, l2=1e-3).kernel(half=True, guard=True) for rule in OPTIMIZERS.values()),
    *(make(name, True) for name in ACTIVATIONS for make in (forward_kernel, backward_kernel)),
    *(training_kernel(name, True, True) for name in LOSSES),
    *(CAST, GATHER),
]


def text_of(kernel: Any, dtype: str) -> Any:
    kind = "row" if kernel.rowwise else "map"
    return source(kernel, Form(kind, dtype, 32 if kernel.rowwise else 4, True, kernel.masked))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_16_bits_are_stored_and_float_computed(kernel: Any, dtype: str) -> None:
    text = text_of(kernel, dtype)
    declared = {name: ctype for ctype, name in (*text.inputs, *text.outputs)}
    for array in kernel.arrays:
        wanted = {"T": "uint16", "C": "float32"}.get(array.ctype, array.ctype)
        assert declared[f"{array.name}_"] == f"raw {wanted}"
    whole = f"{text.in_params} {text.out_params} {text.preamble} {text.operation}"
    assert "double" not in whole and "float64" not in whole
    assert re.findall(r"\d\.\d", re.sub(r"C\([^()]*\)", "", whole)) == []  # each constant is C(...)
    assert f"typedef gpumlp_{dtype} T;\ntypedef float C;" in text.preamble


@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_only_the_copy_of_the_parameters_has_16_bits(rule: str) -> None:
    kernel = OPTIMIZERS[rule]().kernel(half=True)
    assert [a.name for a in kernel.arrays if a.ctype == "T"] == ["p_half"]


def test_strided_arrays_have_32_bits_at_least() -> None:
    with pytest.raises(ValueError, match="gpumlp_relu: dtype float16; arrays of any strides are float32 or"):
        source(forward_kernel("relu"), Form("strided", "float16"))
