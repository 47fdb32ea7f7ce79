"""The kernels that `kernel_report.py` compiles, in the forms that training and `update` use."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gpumlp.kernels.activations import ACTIVATIONS, backward_kernel, forward_kernel
from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.losses import LOSSES, evaluation_kernel, output_kernel, training_kernel
from gpumlp.kernels.optimizers import muon

import gpumlp
from gpumlp.kernels import embeddings, rows, updates
from gpumlp.plans import OUTPUTS
from scripts.reports.cuda_compiler import Form

__all__ = ["LIMITS", "Case", "cases"]

#: bytes per parameter that the formulas ask for, float32: gradient read, parameter and state read and written
LIMITS = {
    **dict.fromkeys(("momentum", "adagrad", "rmsprop", "lion"), 20),
    **dict.fromkeys(("adam", "adamw", "adadelta", "yogi", "nadam", "radam", "muon"), 28),
}
_PENALTIES: dict[str, dict[str, float]] = {
    "plain": {},
    "l2": {"l2": 1e-4},
    "l1 l2 decay clip": {"l1": 1e-5, "l2": 1e-4, "weight_decay": 1e-2},
}


@dataclass(frozen=True)
class Case:
    """A kernel in one of its forms; `rule` is set for optimisers without options."""

    kernel: Kernel
    form: Form
    rule: str = ""

    @property
    def label(self) -> str:
        """Name as in the table."""
        kind = f"row/{self.form.width}" if self.form.kind == "row" else f"{self.form.kind} x{self.form.width}"
        members = " members" if self.form.members else ""
        return f"{self.kernel.name.removeprefix('gpumlp_')} {kind} {self.form.dtype}{members}"

    @property
    def array_bytes(self) -> tuple[int, int]:
        """Bytes per element (loaded, stored) that a map kernel cannot do without."""
        size = np.dtype(self.form.dtype).itemsize
        # the derivative of the identity is 1: the compiler leaves out the output that it is given
        constant = self.kernel.name.startswith("gpumlp_identity_backward")
        roles = [a.role for a in self.kernel.arrays if not (constant and a.name == "a")]
        read = sum(role in ("in", "inout") for role in roles)
        return size * read, size * sum(role in ("out", "inout") for role in roles)


def optimizers(quick: bool) -> Iterator[tuple[str, Any, bool]]:
    """(rule, optimiser, with clipping): every rule with each set of penalties, and each option."""
    lr = 1e-3
    rules: dict[str, Any] = dict(gpumlp.optimizers.OPTIMIZERS)
    rules["momentum"] = lambda **given: gpumlp.SGD(momentum=0.9, **given)
    for name, make in rules.items():
        for label, penalties in _PENALTIES.items():
            given = {"weight_decay": 0.0} if name in ("adamw", "muon") and label != "plain" else {}
            yield name, make(lr=lr, **{**given, **penalties}), "clip" in label
    options = [
        gpumlp.SGD(lr, momentum=0.9, nesterov=True),
        gpumlp.AdaGrad(lr, eps_in_sqrt=False),
        gpumlp.RMSProp(lr, centered=True, momentum=0.9),
        gpumlp.Adam(lr, amsgrad=True),
        gpumlp.Adam(lr, eps_hat=True),
        gpumlp.Yogi(lr, bias_correction=False),
        gpumlp.AdamW(lr, average=0.999),
    ]
    if not quick:
        options += [
            gpumlp.SGD(lr, momentum=0.9, dampening=0.1),
            gpumlp.SGD(lr, l1=1e-5, proximal=True),
            gpumlp.RMSProp(lr, eps_in_sqrt=False),
            gpumlp.RMSProp(lr, centered=True),
            gpumlp.RMSProp(lr, momentum=0.9, l1=1e-5, proximal=True),
            gpumlp.Adam(lr, amsgrad=True, eps_hat=True, l1=1e-5, l2=1e-4),
        ]
    for optimizer in options:
        yield "", optimizer, False


def activations(quick: bool) -> Iterator[Kernel]:
    """Activations and their derivatives, and the row gather."""
    for name in ACTIVATIONS:
        for dropout in (False, True):
            if name == "identity" and not dropout:
                continue  # plans have no launch for it
            if quick and dropout and name not in ("relu", "gelu"):
                continue
            yield forward_kernel(name, dropout)
            yield backward_kernel(name, dropout)
    applied = gpumlp.Muon(average=0.999).applied(3, 4).kernel()
    yield from (rows.GATHER, rows.EXCHANGE, muon.SCALE, muon.BLEND, applied)
    yield from (gpumlp.Muon(l1=l1, l2=l1).direction_kernel(clip=l1 > 0) for l1 in (0.0, 1e-5))


def row_kernels(quick: bool) -> Iterator[Kernel]:
    """Everything that runs row by row."""
    for name, weighted in product(LOSSES, (False,) if quick else (False, True)):
        yield training_kernel(name, weighted)
        yield evaluation_kernel(name, weighted)
    for link in OUTPUTS:
        yield output_kernel(link)
    yield from (rows.SUM, rows.SUM_SQUARES, rows.WEIGHT_SQUARES, rows.STORE_SUM, rows.CLIP, rows.RESET)
    yield from (muon.ROW_SQUARES, muon.INVERSE_NORM)


def embedding_kernels() -> Iterator[Kernel]:
    """What makes the inputs of the first layer, and its gradients."""
    yield from (embeddings.columns_kernel(), embeddings.COSINE, embeddings.PERIODIC, embeddings.PIECEWISE)
    yield from (embeddings.CATEGORIES, embeddings.COSINE_BACKWARD, embeddings.PERIODIC_BACKWARD)
    yield embeddings.CATEGORIES_BACKWARD


def member_kernels(rules: Iterable[Any]) -> Iterator[tuple[Kernel, str]]:
    """(kernel, dtype): a sample of what runs for many networks at once."""
    relu = [make("relu", dropout) for make in (forward_kernel, backward_kernel) for dropout in (False, True)]
    for dtype in ("float32", "float64"):
        for kernel in (*(rule.kernel() for rule in rules), *relu, rows.GATHER):
            yield kernel, dtype
        yield training_kernel("softmax_cross_entropy", False), dtype
        yield rows.SUM_SQUARES, dtype
    for dtype in ("float16", "bfloat16"):
        yield from ((kernel, dtype) for kernel in (*relu, training_kernel("softmax_cross_entropy", False)))


def list_cases(rules: Sequence[Any]) -> Iterator[Case]:
    """`update` of many arrays: plain, and with all of its options in one type and another."""
    for optimizer in rules:
        yield Case(optimizer.kernel(), Form("list", "float32", 4), optimizer.name)
    for make in (gpumlp.SGD, gpumlp.Yogi):
        full = make(lr=1e-3, l1=1e-5, l2=1e-4, weight_decay=1e-2)
        yield Case(full.kernel(clip=True, zero=True), Form("list", "float32", 4, masked=True))
        kernel = full.kernel(guard=True, half=True, narrow=True, zero=True)
        yield from (Case(kernel, Form("list", t, 4, plan=True, masked=True)) for t in ("float16", "bfloat16"))
    yield from (Case(updates.LIST_SQUARES, Form("row", t, 256)) for t in ("float32", "float16", "bfloat16"))
    yield Case(updates.FACTOR, Form("row", "float32", 256))


def cases(quick: bool) -> list[Case]:
    """All kernels in the forms that training uses; each text once."""
    found: dict[tuple, Case] = {}

    def add(kernel: Kernel, dtype: str, rule: str = "") -> None:
        for width in ((1, 32) if quick else (1, 8, 32, 256)) if kernel.rowwise else (4,):
            kind = "row" if kernel.rowwise else "map"
            case = Case(kernel, Form(kind, dtype, width, plan=True, masked=kernel.masked), rule)
            found.setdefault((kernel.name, case.form), case)

    for dtype in ("float32",) if quick else ("float32", "float64"):
        for rule, optimizer, clip in optimizers(quick):
            add(optimizer.kernel(clip=clip), dtype, rule)
        for kernel in (*activations(quick), *row_kernels(quick), *embedding_kernels()):
            add(kernel, dtype)
    rules = [make(lr=1e-3) for make in gpumlp.optimizers.OPTIMIZERS.values()]
    for case in list_cases(rules):
        found[case.kernel.name, case.form] = case
    for dtype in ("float16", "bfloat16"):  # activations and what the products read; all else is float32 there
        half = [forward_kernel("relu"), backward_kernel("relu"), rows.GATHER] if quick else activations(False)
        losses = ["softmax_cross_entropy"] if quick else LOSSES
        scaled = dtype == "float16"
        updates = [rule.kernel(half=True, clip=scaled, guard=scaled) for rule in rules]
        for kernel in (
            *half,
            *(training_kernel(name, False, scaled) for name in losses),
            *(kernel for kernel in embedding_kernels() if any(a.ctype == "T" for a in kernel.arrays)),
            *updates,
            rows.CAST,
        ):
            add(kernel, dtype)
    add(rows.LOSS_SCALE, "float32")
    for kernel, dtype in member_kernels(rules):
        for width in (1, 32, 256) if kernel.rowwise else (4,):
            own = tuple(s.name for s in kernel.constants) if "dropout" in kernel.name else ()
            kind = "row" if kernel.rowwise else "map"
            case = Case(kernel, Form(kind, dtype, width, True, kernel.masked, members=True, own=own))
            found[case.kernel.name, case.form] = case
    return list(found.values())
