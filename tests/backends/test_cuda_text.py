"""The CUDA text made of a kernel, and how a device name becomes an executor; needs no GPU."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from gpumlp.kernels.activations import ACTIVATIONS, backward_kernel, forward_kernel
from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.losses import LOSSES, evaluation_kernel, output_kernel, training_kernel
from gpumlp.kernels.rows import CLIP, GATHER, RESET, SUM

import gpumlp
from gpumlp import backends
from gpumlp.backends.cuda.available import driver_problem
from gpumlp.backends.cuda.text import Form, source, team_size
from gpumlp.optimizers import OPTIMIZERS

KERNELS = [
    *(rule(l1=1e-3, l2=1e-3, weight_decay=1e-2).kernel(clip=True) for rule in OPTIMIZERS.values()),
    *(make(name, True) for name in ACTIVATIONS for make in (forward_kernel, backward_kernel)),
    *(make(name, True) for name in LOSSES for make in (training_kernel, evaluation_kernel)),
    *(output_kernel(link) for link in ("identity", "exp", "sigmoid", "softmax")),
    *(CLIP, GATHER, RESET, SUM),
]


def form(kernel, dtype="float32", width=None, plan=True):
    kind = "row" if kernel.rowwise else "map"
    return Form(kind, dtype, width or (32 if kernel.rowwise else 4), plan, kernel.masked)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_no_double_in_single_precision_text(kernel):
    text = source(kernel, form(kernel))
    whole = f"{text.in_params} {text.out_params} {text.preamble} {text.operation}"
    assert "double" not in whole and "float64" not in whole
    assert re.findall(r"\d\.\d", re.sub(r"C\([^()]*\)", "", whole)) == []  # each constant is C(...)
    assert "float" not in source(kernel, form(kernel, "float64")).in_params.replace("float64", "")


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_parameters_have_different_names_and_keep_the_kernels_name(kernel):
    text = source(kernel, form(kernel))
    names = [name for _, name in (*text.inputs, *text.outputs)]
    assert len(set(names)) == len(names)
    assert text.name == kernel.name


def test_each_array_is_read_and_stored_once_on_the_vector_path():
    kernel = OPTIMIZERS["adam"]().kernel()
    vector = source(kernel, form(kernel)).operation.split("} else {")[0]
    for name in "gpvs":
        assert vector.count(f"({name}_p_);") == 1
    assert [vector.count(f"({name}_p_) =") for name in "gpvs"] == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "rows, cols, team", [(5, 1, 1), (9999, 2, 1), (1, 10, 8), (4096, 1000, 32), (128, 1000, 256)]
)
def test_threads_per_row(rows, cols, team):
    assert team_size(rows, cols) == team


def test_forms_that_do_not_exist_are_refused():
    kernel = OPTIMIZERS["adam"]().kernel()
    with pytest.raises(ValueError, match="gpumlp_adam is a map kernel, not row"):
        source(kernel, Form("row", "float32", 32))
    with pytest.raises(ValueError, match="gpumlp_adam: dtype int32"):
        source(kernel, Form("map", "int32", 4))
    masked = Kernel("gpumlp_x", "ROW_ONE { }", lambda **_: None, outputs="T a", rowwise=True, masked=True)
    with pytest.raises(ValueError, match="row kernel cannot be masked"):
        source(masked, Form("row", "float32", 32))


# ---- device names -----------------------------------------------
def test_import_does_not_import_cupy():
    code = "import sys, gpumlp, gpumlp.backends.cuda.text; print('cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_name_gives_the_same_object_and_a_backend_itself():
    numpy = gpumlp.get_backend("numpy")
    assert gpumlp.get_backend(" NumPy ") is numpy is gpumlp.get_backend(numpy)
    assert backends.backend_of(np.zeros(2)).device == "cpu"


def test_environment_overrides_auto_only(monkeypatch):
    monkeypatch.setenv("GPUMLP_DEVICE", "numpy")
    assert gpumlp.get_backend("auto").name == "numpy"
    assert gpumlp.get_backend().name == "numpy"
    monkeypatch.setenv("GPUMLP_DEVICE", "gpu0")
    assert gpumlp.get_backend("numpy").name == "numpy"
    with pytest.raises(ValueError, match="GPUMLP_DEVICE"):
        gpumlp.get_backend("auto")


def test_auto_takes_cuda_where_usable_else_the_cpu(monkeypatch):
    monkeypatch.setattr(backends, "cuda_problem", lambda device=0: "no device")
    assert gpumlp.get_backend("auto") is gpumlp.get_backend("cpu")
    made = {"cuda:0": gpumlp.get_backend("numpy")}
    monkeypatch.setattr(backends, "cuda_problem", lambda device=0: None)
    monkeypatch.setattr(backends, "made", made)
    assert gpumlp.get_backend("auto") is gpumlp.get_backend("cuda") is made["cuda:0"]


def test_unusable_cuda_says_why_and_what_to_do(monkeypatch):
    monkeypatch.setattr(backends, "cuda_problem", lambda device=0: f"there is no device {device}")
    monkeypatch.setattr(backends, "made", {})
    with pytest.raises(
        gpumlp.DeviceError, match=r"device='cuda:3' cannot be used: there is no device 3.*'auto'"
    ):
        gpumlp.get_backend("cuda:3")


def test_cpu_without_a_compiler_is_numpy_and_warns_once(monkeypatch):
    native = pytest.importorskip("gpumlp.backends.native.backend")
    monkeypatch.setattr(
        native.NativeBackend, "why_not", staticmethod(lambda: "no C++ compiler was found: why")
    )
    with pytest.warns(RuntimeWarning, match="no C.. compiler was found") as caught:
        assert gpumlp.get_backend("cpu").name == "numpy"
        assert gpumlp.get_backend("cpu").name == "numpy"
    assert len(caught) == 1
    monkeypatch.setattr(backends, "made", {})
    with pytest.raises(gpumlp.DeviceError, match=r"native.*no C.. compiler"):
        gpumlp.get_backend("native")


@pytest.mark.parametrize("name", ["cdua", "cuda:x", "gpu0", "cuda:-1"])
def test_unknown_names_are_answered_with_known_ones(name):
    with pytest.raises(ValueError, match=r"unknown device .* Known: auto, cpu, cuda"):
        gpumlp.get_backend(name)


def test_a_device_that_is_no_name_and_an_array_that_is_none():
    with pytest.raises(TypeError, match="device=3; expected a name"):
        gpumlp.get_backend(3)
    with pytest.raises(TypeError, match="list was given; expected a NumPy or CuPy array"):
        backends.backend_of([1.0])


def test_cuda_problem_without_cupy(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "CuPy is not installed: pip install" in backends.cuda_problem()


class _Runtime:
    """Stands for CUDA's runtime: `count` devices, or an error."""

    cudaErrorInsufficientDriver = 35

    def __init__(self, count=None, status=None, driver=0):
        self.count, self.status, self.driver = count, status, driver

    def getDeviceCount(self):
        if self.count is None:
            error = RuntimeError("cudaErrorSomething")
            error.status = self.status
            raise error
        return self.count

    def driverGetVersion(self):
        return self.driver


@pytest.mark.parametrize(
    "runtime, device, text",
    [
        (_Runtime(status=35), 0, "no NVIDIA driver"),
        (_Runtime(status=35, driver=11020), 0, r"driver \(for CUDA 11.2\) is older"),
        (_Runtime(status=100, driver=12040), 0, "no CUDA device"),
        (_Runtime(count=0), 0, "no CUDA device"),
        (_Runtime(count=1), 1, "there is 1 CUDA device, cuda:0"),
        (_Runtime(count=4), 7, "there are 4 CUDA devices, cuda:0 to cuda:3"),
    ],
)
def test_cuda_problem_names_what_is_missing(runtime, device, text):
    class cupy:
        __version__ = "14.0"

    assert re.search(text, driver_problem(cupy, runtime, device))


def test_cuda_problem_of_a_device_that_is_there():
    assert driver_problem(None, _Runtime(count=2), 1) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_initialization_error_in_a_child_of_fork_is_explained():
    """Also if it was not this package that has started CUDA in the parent."""

    class cupy:
        __version__ = "14.0"

    runtime = _Runtime(status=3, driver=12040)
    assert "no CUDA device" in driver_problem(cupy, runtime, 0)
    pid = os.fork()
    if pid == 0:
        os._exit(int("get_context('spawn')" not in driver_problem(cupy, runtime, 0)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
