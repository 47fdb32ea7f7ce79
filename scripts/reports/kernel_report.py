"""Compile every CUDA kernel for every architecture, without a GPU, and show what the compiler made of it.

The text is what CuPy would generate, the options are CuPy's, the compiler is NVRTC.  Per kernel and
architecture: registers, spills, shared memory, and of the path on which a thread handles a whole vector:
instructions per element, bytes loaded and stored per element by 16-byte accesses ("array") and by all others
("other": hyper-parameters, step counter, weight mask, indices; per thread they are mostly served by caches),
the widest load, how many 16-byte loads are under way together, and how often a thread waits for an earlier
load before the last of them is sent.

Exit status 1: a kernel does not compile, spills registers, uses double precision although its data are
float32, moves more or fewer bytes than its formula asks for, or not in 16-byte pieces.  (Of half-precision
kernels, whose vectors have 8 bytes, bytes are shown under "other" and not checked.)
Needs the packages of the extra `report` (NVRTC 12) or `report13` (NVRTC 13); no GPU, no driver, no CuPy.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
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
from gpumlp.kernels import embeddings, rows
from gpumlp.plans import OUTPUTS
from scripts.reports.cuda_compiler import (
    ARCHITECTURES,
    Compiled,
    Compiler,
    Form,
    ToolError,
    disassemble,
    source,
)
from scripts.reports.sass import Traffic, parse, traffic
from scripts.shared.command import check_writable, write_json
from scripts.shared.machine import cpu_count
from scripts.shared.show import table

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


@dataclass
class Row:
    """One line of the report; bytes and instructions are per element (map kernels) or per thread."""

    kernel: str
    arch: int
    registers: int
    spill_bytes: int
    stack: int
    shared: int
    instructions: float
    array_loaded: float
    array_stored: float
    other_loaded: float
    other_stored: float
    widest_load: int
    overlapping: int
    waits: int
    double: int


# ---- the kernels -------------------------------------------------------------------------------------------
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
    for rule, optimizer in zip(gpumlp.optimizers.OPTIMIZERS, rules, strict=True):  # `update` of many arrays
        case = Case(optimizer.kernel(), Form("list", "float32", 4), rule)
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


# ---- compiling and reading ---------------------------------------------------------------------------------
def build(
    compiler: Compiler, chosen: Sequence[Case], architectures: Sequence[int], jobs: int
) -> tuple[list[tuple[Case, Row]], list[str]]:
    """Compile all cases for all architectures: rows, and what went wrong."""
    results: list[tuple[Case, Row]] = []
    errors: list[str] = []

    def one(case: Case, arch: int) -> Compiled | str:
        try:
            return compiler.compile(source(case.kernel, case.form), arch)
        except ToolError as error:
            return str(error)

    with ThreadPoolExecutor(jobs) as pool:
        for arch in architectures:
            outcome = list(pool.map(lambda case: one(case, arch), chosen))  # noqa: B023  (done within the loop)
            errors += [made for made in outcome if isinstance(made, str)]
            good = [
                (case, made) for case, made in zip(chosen, outcome, strict=True) if not isinstance(made, str)
            ]
            listings = disassemble([made.code for _, made in good], arch) if good else []
            results += [
                (case, _row(case, arch, made, lines))
                for (case, made), lines in zip(good, listings, strict=True)
            ]
    return results, errors


def _row(case: Case, arch: int, made: Compiled, lines: Iterable[str]) -> Row:
    code = parse(lines)
    seen: Traffic = traffic(code)
    per = 1 if case.form.kind == "row" else case.form.width
    return Row(
        case.label,
        arch,
        made.registers,
        made.spill_bytes,
        made.stack,
        made.shared,
        seen.instructions / per,
        seen.loaded(wide=True) / per,
        seen.stored(wide=True) / per,
        seen.loaded(wide=False) / per,
        seen.stored(wide=False) / per,
        max(seen.load_widths, default=0),
        seen.overlapping,
        seen.waits,
        sum(i.is_double for i in code),
    )


def problems(case: Case, row: Row) -> list[str]:
    """What is wrong with one kernel on one architecture."""
    where, found = f"{row.kernel}, sm_{row.arch}", []
    if row.spill_bytes or row.stack:
        found.append(f"{where}: {row.spill_bytes} bytes of spills, {row.stack} bytes of stack")
    if row.double and case.form.dtype != "float64":
        found.append(f"{where}: {row.double} double-precision instructions")
    if case.form.kind != "row" and case.form.dtype in ("float32", "float64"):
        loaded, stored = case.array_bytes
        if (row.array_loaded, row.array_stored) != (loaded, stored):
            found.append(
                f"{where}: {row.array_loaded:g} + {row.array_stored:g} bytes loaded and stored per element "
                f"in 16-byte pieces, expected {loaded} + {stored}"
            )
        limit = LIMITS.get(case.rule)
        if limit and case.form.dtype == "float32" and row.array_loaded + row.array_stored != limit:
            found.append(f"{where}: {row.array_loaded + row.array_stored:g} bytes per parameter, not {limit}")
    return found


# ---- output ------------------------------------------------------------------------------------------------
_HEADER = (
    "kernel",
    "sm",
    "regs",
    "spill",
    "shared",
    "instr",
    "array B ld",
    "st",
    "other B ld",
    "st",
    "widest",
    "in flight",
    "waits",
    "double",
)


def _line(row: Row) -> list[str]:
    numbers = (row.instructions, row.array_loaded, row.array_stored, row.other_loaded, row.other_stored)
    return [
        row.kernel,
        str(row.arch),
        str(row.registers),
        str(row.spill_bytes + row.stack),
        str(row.shared),
        *(f"{n:.4g}" for n in numbers),
        str(row.widest_load),
        str(row.overlapping),
        str(row.waits),
        str(row.double),
    ]


def chosen_architectures(compiler: Compiler, wanted: Sequence[int] | None, quick: bool) -> list[int]:
    """`wanted`, or what the compiler knows of `ARCHITECTURES`; `quick`: the oldest of these and two new."""
    known = compiler.architectures()
    unknown = sorted(set(wanted or ()) - set(known))
    if unknown:
        raise ToolError(
            f"NVRTC {compiler.version()} does not know sm_{unknown[0]}; it knows "
            + ", ".join(f"sm_{arch}" for arch in known)
        )
    found = [arch for arch in wanted or ARCHITECTURES if arch in known]
    return [arch for arch in found if arch in (found[0], 90, 120)] if quick and not wanted else found


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="fewer variants and architectures, no float64")
    p.add_argument(
        "--arch",
        type=int,
        nargs="+",
        help=f"default: of {' '.join(map(str, ARCHITECTURES))} those that the compiler knows",
    )
    p.add_argument("--nvrtc", type=int, choices=(12, 13), help="version (default: the newest installed)")
    p.add_argument("--only", default="", help="kernels whose label contains this text")
    p.add_argument("--jobs", type=int, default=cpu_count(), help="compilations at a time")
    p.add_argument("--json", metavar="FILE", help="write the rows")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the report; returns the exit status."""
    args = parser().parse_args(argv)
    check_writable(args.json)
    chosen = [case for case in cases(args.quick) if args.only in case.label]
    if not chosen:
        parser().error(f"no kernel's label contains {args.only!r}")
    start = time.perf_counter()
    try:
        compiler = Compiler(args.nvrtc)
        version = compiler.version()
        architectures = chosen_architectures(compiler, args.arch, args.quick)
        results, wrong = build(compiler, chosen, architectures, args.jobs)
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for case, row in results:
        wrong += problems(case, row)
    print(table(_HEADER, [_line(row) for _, row in results]))
    print(
        f"\n{len(chosen)} kernels x {len(architectures)} architectures, NVRTC {version}, "
        f"{time.perf_counter() - start:.0f} s; instructions and bytes per element (row kernels: per thread, "
        "each loop counted once)"
    )
    if args.json:
        write_json(args.json, {"nvrtc": version, "rows": [asdict(r) for _, r in results], "problems": wrong})
    print("\n".join(["problems:", *wrong]) if wrong else "no problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
