"""The reports: compiled code, counts on a device, and everything about a GPU in one command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import gpumlp
from gpumlp.backends import cuda_problem

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
    sass = script("_sass")
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
    assert script("_sass").Instruction(0, "", name, "").is_double is double


def test_kernels_compile_as_the_report_wants(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, compiler = script("kernel_report"), script("_cuda_compiler")
    try:
        compiler.Compiler()
        compiler.nvdisasm()
    except compiler.ToolError as error:
        pytest.skip(str(error))
    file = tmp_path / "kernels.json"
    assert report.main(["--quick", "--only", "adam_l1", "--arch", "70", "90", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert {row["arch"] for row in rows} == {70, 90}
    for row in rows:
        assert row["array_loaded"] + row["array_stored"] == 28
        assert row["widest_load"] == 16 and row["overlapping"] == 4
    assert "no problems" in capsys.readouterr().out


def test_the_report_finds_what_is_wrong(script: Script) -> None:
    report = script("kernel_report")
    try:
        script("_cuda_compiler").Compiler()
    except script("_cuda_compiler").ToolError as error:
        pytest.skip(str(error))
    form = report.Form("map", "float32", 4, plan=True)

    def wrong(body: str) -> list[str]:
        kernel = report.Kernel("gpumlp_wrong", body, lambda **_: None, inputs="T x", outputs="T y")
        results, errors = report.build([report.Case(kernel, form)], [80], 1)
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

    from gpumlp.backends.base import Launch, Steps
    from gpumlp.backends.cuda.text import Form, source

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
    call = backend.bind_plan(launch, Steps(zeros(2, "int64"), zeros((1, 1), "float32"), ("s",)))
    text = source(kernel, Form(form, "float32", 4 if form == "map" else 32, plan=True))
    assert call.function.cached_code.split() == script("_cuda_compiler").cupy_source(text).split()


@pytest.mark.skipif(bool(cuda_problem()), reason="no CUDA device")
def test_graph_report_within_its_limits(script: Script, tmp_path: Path) -> None:
    file = tmp_path / "graphs.json"
    assert script("graph_report").main(["--only", "32-16-2", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["operations"] == 10 and row["pool_growth"] == 0


def test_graph_report_names_what_exceeds(script: Script) -> None:
    report = script("graph_report")
    setup = report.setups()[0]
    good = dict.fromkeys(report.Counts.__dataclass_fields__, 0)
    good |= {"label": setup.label, "graph_launches": setup.steps, "optimizer_kernels": 1}
    assert report.problems(setup, report.Counts(**good)) == []
    for name, value in (("syncs", 2), ("mallocs", 1), ("nodes", 16), ("graph_launches", 7), ("h2d", 2)):
        (line,) = report.problems(setup, report.Counts(**{**good, name: value}))
        assert name in line


@pytest.mark.skipif(bool(cuda_problem()), reason="no CUDA device")
def test_gpu_report_runs_to_its_end(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = script("gpu_report")

    def broken(part: object, quick: bool) -> None:
        raise RuntimeError("broken part")

    monkeypatch.setitem(report.PARTS, "memory", ("Memory", broken))
    prefix = str(tmp_path / "gpu")
    parts = ["memory", "graphs", "training"]
    assert report.main(["--quick", "--output", prefix, "--parts", *parts]) == 1
    stored = json.loads(Path(prefix + ".json").read_text())
    assert stored["parts"]["Memory"]["problems"] and not stored["parts"]["Time per training step"]["problems"]
    assert len(stored["parts"]["Time per training step"]["figures"]) >= 2
    text = Path(prefix + ".md").read_text()
    assert "broken part" in text
    assert ("Simulated device" in text) is stored["simulated"]
