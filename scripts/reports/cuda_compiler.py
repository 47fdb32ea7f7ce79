"""Kernels as CuPy compiles them, without CuPy and without a GPU: source text, NVRTC, machine code.

NVRTC, the disassembler and the headers come from packages (see the extras `report` and `report13` of this
project); CuPy is needed for its headers only and is not imported.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gpumlp.backends.cuda.text import Form, Source, source

__all__ = [
    "ARCHITECTURES",
    "Compiled",
    "Compiler",
    "Form",
    "ToolError",
    "cupy_source",
    "disassemble",
    "nvdisasm",
    "source",
]

#: compute capabilities of the report: Volta, Turing, two Amperes, Ada, Hopper, two Blackwells; a compiler is
#: asked for those that it knows (NVRTC 13 has no Volta)
ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)
#: major version -> library and headers below the package folder `nvidia`
_LAYOUTS = {
    13: ("cu13/bin/x86_64/nvrtc64_13*.dll" if os.name == "nt" else "cu13/lib/libnvrtc.so.13", "cu13/include"),
    12: (
        "cuda_nvrtc/bin/nvrtc64_12*.dll" if os.name == "nt" else "cuda_nvrtc/lib/libnvrtc.so.12",
        "cuda_runtime/include",
    ),
}

_CTYPES = {
    "float32": "float",
    "float64": "double",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
}
# cupy/_core/_kernel.pyx: one loop over all elements, each thread as many as the grid leaves to it
_TEMPLATE = """
    {preamble_of_types}
    {preamble}
    extern "C" __global__ void {name}({params}) {{
      ;
      #pragma unroll 1
      CUPY_FOR(i, _ind.size()) {{
        _ind.set(i);
        {operation};
      }}
      ;
    }}
    """
# cupy/_core/core.pyx: put before every source
_HEADERS = "".join(
    f"#include <cupy/{name}>\n" for name in ("complex.cuh", "carray.cuh", "atomics.cuh", "math_constants.h")
)


class ToolError(RuntimeError):
    """A package or a program is missing, or the compiler refused; the message says what to do."""


def cupy_source(source: Source) -> str:
    """What CuPy makes of an `ElementwiseKernel` whose arrays are all `raw` and passed by address.

    Equal to `ElementwiseKernel.cached_code` (a test compares them where there is a device).
    """
    params = []
    for const, parameters in (("const ", source.inputs), ("", source.outputs)):
        for ctype, name in parameters:
            raw = ctype.startswith("raw ")
            text = _CTYPES[ctype.removeprefix("raw ")]
            params.append(f"{const}{f'CArray<{text}, 1, 1, 1>' if raw else text} {name}")
    params.append("CIndexer<1, 1> _ind")
    return _TEMPLATE.format(
        preamble_of_types="",
        preamble=source.preamble,
        name=source.name,
        params=", ".join(params),
        operation=source.operation,
    )


def installed(*parts: str) -> Path:
    """The first file or folder with this path under one of Python's package folders."""
    spec = find_spec(parts[0])
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = sorted(Path(folder).glob("/".join(parts[1:])))
        if found:
            return found[0]
    raise ToolError(
        f"{'/'.join(parts)} was not found; install the packages of the extra report (CUDA 12) or report13 "
        "(CUDA 13): pip install 'gpumlp[report]'"
    )


def nvrtc_versions() -> list[int]:
    """Major versions of NVRTC that are installed as packages, the newest first."""
    found = []
    for major, (library, _) in _LAYOUTS.items():
        try:
            installed("nvidia", library)
        except ToolError:
            continue
        found.append(major)
    return found


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture."""

    registers: int
    stack: int
    spill_bytes: int
    shared: int
    code: bytes


class Compiler:
    """NVRTC with the options that CuPy gives it.

    Parameters
    ----------
    major : int, optional
        Version of NVRTC; the newest that is installed if left out.

    Raises
    ------
    ToolError
        A package is missing.
    """

    def __init__(self, major: int | None = None) -> None:
        library, headers = _LAYOUTS[major or next(iter(nvrtc_versions()), 12)]
        self._lib = ctypes.CDLL(str(installed("nvidia", library)))
        include = installed("cupy", "_core/include")
        cccl = [f"-I{include}/cupy/_cccl/{name}" for name in ("cub", "thrust", "libcudacxx")]
        runtime = installed("nvidia", headers)
        self._options = [*cccl, "--std=c++17", f"-I{include}", f"-I{runtime}", "-ftz=true"]

    def version(self) -> str:
        """Such as "12.9"."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def architectures(self) -> list[int]:
        """Compute capabilities that this compiler knows, in ascending order."""
        count = ctypes.c_int()
        self._lib.nvrtcGetNumSupportedArchs(ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self._lib.nvrtcGetSupportedArchs(known)
        return sorted(known)

    def compile(self, source: Source, architecture: int) -> Compiled:
        """Compile to machine code; ToolError with the compiler's log if it refuses."""
        options = [
            *self._options,
            f"-arch=sm_{architecture}",
            "--device-as-default-execution-space",
            "--ptxas-options=-v",  # the only one that CuPy does not give: prints registers and spills
        ]
        lib, program = self._lib, ctypes.c_void_p()
        text = (_HEADERS + cupy_source(source)).encode()
        status = lib.nvrtcCreateProgram(ctypes.byref(program), text, b"kernel.cu", 0, None, None)
        if status:
            raise ToolError(f"nvrtcCreateProgram: status {status}")
        try:
            given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
            status = lib.nvrtcCompileProgram(program, len(options), given)
            log = self._read(program, "ProgramLog").decode(errors="replace")
            if status:
                raise ToolError(f"{source.name}, sm_{architecture}: NVRTC status {status}\n{log}")
            cubin = self._read(program, "CUBIN")
        finally:
            lib.nvrtcDestroyProgram(ctypes.byref(program))
        return _compiled(source.name, architecture, log, cubin)

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(self._lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(max(1, size.value))
        getattr(self._lib, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw if what == "CUBIN" else buffer.value


def _compiled(name: str, architecture: int, log: str, cubin: bytes) -> Compiled:
    def number(pattern: str, default: int | None = None) -> int:
        found = re.search(pattern, log)
        if found is None and default is None:
            raise ToolError(f"{name}, sm_{architecture}: no {pattern!r} in the compiler's log\n{log}")
        return int(found[1]) if found else int(default or 0)

    spill = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    return Compiled(
        registers=number(r"Used (\d+) registers"),
        stack=number(r"(\d+) bytes stack frame") + number(r"(\d+) bytes lmem", 0),
        spill_bytes=spill,
        shared=number(r"(\d+) bytes smem", 0),
        code=_section(cubin, f".text.{name}"),
    )


def _section(elf: bytes, wanted: str) -> bytes:
    """Contents of a section of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + n * size) for n in range(count)]
    for header in headers:
        start = headers[names][4] + header[0]
        if elf[start : elf.index(b"\0", start)].decode() == wanted:
            return elf[header[4] : header[4] + header[5]]
    raise ToolError(f"the compiler's output has no section {wanted}")


def nvdisasm() -> Path:
    """The disassembler; ToolError if its package is not installed."""
    tool = installed("nvidia", "*/bin/nvdisasm*")
    if not os.access(tool, os.X_OK):  # installers lose the permission
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return tool


def disassemble(codes: Sequence[bytes], architecture: int) -> list[list[str]]:
    """Lines of instructions, ``/*0a20*/ LDG.E.128 R8, [R2] ;``, of each code; addresses begin at 0."""
    tool = nvdisasm()
    # the disassembler of today has forgotten sm_70, whose programs sm_75 runs as they are
    known = 75 if architecture == 70 else architecture
    starts, blob = [], b""
    for code in codes:  # one run for all: the program takes longer to start than to work
        starts.append(len(blob))
        blob += code
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "code.bin")
        path.write_bytes(blob)
        run = subprocess.run(
            [tool, "-b", f"SM{known}", path], capture_output=True, text=True, check=False, timeout=600
        )
    if run.returncode:
        raise ToolError(f"{tool.name} for sm_{architecture}: {run.stderr.strip() or run.stdout[-500:]}")
    found: list[list[str]] = [[] for _ in codes]
    place, ends = 0, [*starts[1:], len(blob)]
    for line in run.stdout.splitlines():
        match = re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(\S.*;)", line)
        if match:
            address = int(match[1], 16)
            while address >= ends[place]:
                place += 1
            start = starts[place]
            text = match[2]
            if re.search(r"\b(BRA|CALL|BSSY|JMP)", text):  # targets are addresses in the blob
                text = re.sub(r"\b0x([0-9a-f]+)(?= ?;)", lambda m: hex(int(m[1], 16) - start), text)  # noqa: B023
            found[place].append(f"/*{address - start:04x}*/ {text}")
    return found
