"""kernel_report.py: compiled code, by both versions of the compiler where they are installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from gpumlp.kernels.kernel import Kernel

import gpumlp
from gpumlp.backends import cuda_problem
from gpumlp.backends.cuda.text import Form

Script = Callable[[str], ModuleType]

# A made-up kernel: two wide loads, a wait, a third; a slow path; a loop over the rest; a double addition.
LISTING = """
/*0000*/ S2R R0, SR_TID.X ;
/*0010*/ @P0 BRA 0x00a0 ;
/*0020*/ LDG.E.128 R4, desc[UR4][R2.64] ;
/*0030*/ LDG.E.128.CONSTANT R8, [R14.64] ;
/*0040*/ FADD R4, R4, R8 ;
/*0050*/ LDG.E.128 R16, [R20] ;
/*0060*/ LDG.E.U8 R1, [R22] ;
/*0070*/ @!P1 BRA 0x0090 ;
/*0080*/ CALL.REL.NOINC 0x00f0 ;
/*0090*/ STG.E.128 [R2.64], R4 ;
/*0098*/ BRA 0x00e0 ;
/*00a0*/ LDG.E R5, [R2.64] ;
/*00b0*/ DADD R6, R6, R6 ;
/*00c0*/ STG.E [R2.64], R5 ;
/*00d0*/ @P0 BRA 0x00a0 ;
/*00e0*/ EXIT ;
/*00f0*/ MUFU.RCP R1, R1 ;
/*0100*/ RET.REL.NODEC R2 0x0 ;
/*0110*/ NOP ;
"""


def test_machine_code_is_read_along_the_vector_path(script: Script) -> None:
    sass = script("reports.sass")
    code = sass.parse(LISTING.strip().splitlines())
    assert code[-1].head == "RET"  # padding is dropped
    assert [i.name for i in code if i.is_double] == ["DADD"]
    seen = sass.traffic(code)
    assert seen.load_widths == {16: 3, 1: 1}  # not the loop's
    assert seen.store_widths == {16: 1}
    assert (seen.loaded(wide=True), seen.loaded(wide=False)) == (48, 1)
    assert (seen.overlapping, seen.waits) == (2, 1)


@pytest.mark.parametrize(
    "name, double",
    [
        ("DFMA", True),
        ("F2F.F64.F32", True),
        ("I2F.F64.S64", True),
        ("MUFU.RSQ64H", True),
        ("FFMA.FTZ", False),
        ("IMAD.WIDE.U32", False),
        ("LDG.E.64", False),
        ("DEPBAR.LE", False),
    ],
)
def test_double_precision_is_recognised(script: Script, name: str, double: bool) -> None:
    assert script("reports.sass").Instruction(0, "", name, "").is_double is double


@pytest.fixture(params=[12, 13])
def nvrtc(script: Script, request: pytest.FixtureRequest) -> Any:
    """A compiler of that version, if its packages are installed."""
    compiler = script("reports.cuda_compiler")
    try:
        compiler.nvdisasm()
        return compiler.Compiler(request.param)
    except compiler.ToolError as error:
        pytest.skip(str(error))


def test_kernels_compile_as_the_report_wants(
    script: Script, nvrtc: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = script("reports.kernel_report")
    file = tmp_path / "kernels.json"
    major = nvrtc.version().split(".")[0]
    given = ["--quick", "--only", "adam_l1", "--nvrtc", major, "--json", str(file)]
    assert report.main(given) == 0
    stored = json.loads(file.read_text())
    oldest = {"12": 70, "13": 75}[major]  # CUDA 13 has no Volta
    assert {row["arch"] for row in stored["rows"]} == {oldest, 90, 120}
    assert stored["nvrtc"].startswith(f"{major}.")
    for row in stored["rows"]:
        assert row["array_loaded"] + row["array_stored"] == 28
        assert row["widest_load"] == 16 and row["overlapping"] == 4
    assert "no problems" in capsys.readouterr().out
    assert report.main([*given, "--arch", "60" if major == "13" else "20"]) == 1
    assert f"NVRTC {nvrtc.version()} does not know sm_" in capsys.readouterr().err


def test_the_newest_compiler_is_taken_if_none_is_named(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = script("reports.cuda_compiler")
    there = {"cuda_nvrtc/lib/libnvrtc.so.12", "cu13/lib/libnvrtc.so.13"}

    def installed(*parts: str) -> Path:
        if parts[1] in there:
            return Path(*parts)
        raise compiler.ToolError("/".join(parts))

    monkeypatch.setattr(compiler, "installed", installed)
    assert compiler.nvrtc_versions() == [13, 12]
    there.remove("cu13/lib/libnvrtc.so.13")
    assert compiler.nvrtc_versions() == [12]
    there.clear()
    with pytest.raises(compiler.ToolError, match=r"libnvrtc\.so\.12"):
        compiler.Compiler()


def test_the_report_finds_what_is_wrong(script: Script, nvrtc: Any) -> None:
    report = script("reports.kernel_report")
    form = Form("map", "float32", 4, plan=True)

    def wrong(body: str) -> list[str]:
        kernel = Kernel("gpumlp_wrong", body, lambda **_: None, inputs="T x", outputs="T y")
        results, errors = report.build(nvrtc, [report.Case(kernel, form)], [80], 1)
        return errors + [line for case, row in results for line in report.problems(case, row)]

    assert wrong("y = C(2) * x;") == []
    assert "double-precision" in wrong("y = 0.1 * x;")[0]
    assert "expected 4 + 4" in wrong("y = C(1);")[0]  # x is not read
    assert "stack" in wrong("volatile C t[64]; t[c & 63] = x; y = t[(c + 1) & 63];")[0]
    assert "NVRTC" in wrong("y = nonsense;")[0]


@pytest.mark.parametrize("form", ["map", "row"])
def test_generated_source_is_cupys(script: Script, form: str) -> None:
    if cuda_problem():
        pytest.skip(f"no CUDA device: {cuda_problem()}")
    from gpumlp.kernels.kernel import Kernel

    from gpumlp.backends.base import Steps
    from gpumlp.backends.cuda.text import Form, source
    from gpumlp.backends.operations import Launch

    backend = gpumlp.get_backend("cuda")
    body = "y = x * s;" if form == "map" else "ROW_SUM(total, x[c])\nROW_EACH { y[c] = total * s; }"
    kernel = Kernel(
        f"gpumlp_source_{form}",
        body,
        lambda **_: None,
        inputs="T x",
        outputs="T y",
        raws="int32 index",
        scalars="int64 n",
        stepped=("s",),
        rowwise=form == "row",
    )
    zeros = backend.zeros
    arrays = {"x": zeros((4, 64), "float32"), "y": zeros((4, 64), "float32"), "index": zeros(4, "int32")}
    launch = Launch(kernel, arrays, {"n": 1}, 4, 64)
    call = backend.bind_plan(launch, Steps(backend, ("s",), "float32"))
    text = source(kernel, Form(form, "float32", 4 if form == "map" else 32, plan=True))
    assert call.function.cached_code.split() == script("reports.cuda_compiler").cupy_source(text).split()
