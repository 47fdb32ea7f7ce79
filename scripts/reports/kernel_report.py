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
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.reports.cuda_compiler import (
    ARCHITECTURES,
    Compiled,
    Compiler,
    ToolError,
    disassemble,
    source,
)
from scripts.reports.kernel_cases import LIMITS, Case, cases
from scripts.reports.sass import Traffic, parse, traffic
from scripts.shared.command import check_writable, write_json
from scripts.shared.machine import cpu_count
from scripts.shared.show import table


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
