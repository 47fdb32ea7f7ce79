"""`update` of arrays of other libraries, in their own memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.backends import cuda_problem


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def test_pytorch_module(torch: Any) -> None:
    """The parameters of a module, which require gradients, as PyTorch's own optimiser moves them."""
    results = []
    for ours in (True, False):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
        params = list(net.parameters())
        opt: Any = gpumlp.Adam(lr=0.1, eps=1e-8) if ours else torch.optim.Adam(params, lr=0.1)
        X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
        for _ in range(20):
            loss = (net(X) ** 2).mean()
            for p in params:
                p.grad = None
            loss.backward()
            if ours:
                opt.update(net.parameters(), [p.grad for p in params], zero=True)
                assert all((p.grad == 0).all() for p in params)
            else:
                opt.step()
        results.append([p.detach().numpy() for p in params])
    for a, b in zip(*results, strict=True):
        close(a, b, "100 steps")


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16"])
def test_pytorch_types(torch: Any, kind: str) -> None:
    """In place, strided too; the state is what NumPy's arrays would give."""
    base = torch.arange(24.0).reshape(4, 6).to(getattr(torch, kind))
    p, kept = base[:, ::2], base[:, 1::2].clone()
    g, opt = torch.ones_like(p), gpumlp.SGD(lr=0.5)
    opt.update(p, g)
    opt.update([p], (g,))
    assert (p.double() == torch.arange(24.0).reshape(4, 6)[:, ::2] - 1).all()
    assert (base[:, 1::2] == kept).all() and opt.t == 2
    assert ("master" in opt.state[0]) is (kind in ("float16", "bfloat16"))


def test_pytorch_beside_numpy(torch: Any) -> None:
    p, g = torch.ones(3, dtype=torch.float64), np.ones(3)
    gpumlp.SGD(lr=0.5).update(p, g)
    q = np.ones(3)
    gpumlp.SGD(lr=0.5).update(q, torch.tensor(g))
    assert (p.numpy() == 0.5).all() and (q == 0.5).all()


def test_pytorch_that_has_no_array(torch: Any) -> None:
    dense = torch.ones(3)
    for bad in (dense.to_sparse(), torch.ones(3, device="meta")):
        with pytest.raises(TypeError, match=r"grads\[0\] is torch Tensor; its memory cannot be shared"):
            gpumlp.SGD().update(dense, bad)
    with pytest.raises(TypeError, match=r"params\[0\] is int64; supported are"):
        gpumlp.SGD().update(torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"params\[0\] is broadcast"):
        gpumlp.SGD().update(torch.ones(1).expand(3), dense)
    with pytest.raises(ValueError, match=r"grads\[0\] is broadcast"):
        gpumlp.SGD().update(dense, torch.ones(1).expand(3), zero=True)


def test_jax() -> None:
    """Its arrays cannot be changed: they are gradients, not parameters."""
    jax = pytest.importorskip("jax")
    w, opt = np.ones(3, np.float32), gpumlp.SGD(lr=0.5)
    grad = jax.grad(lambda w: (w**2).sum())
    opt.update(w, grad(w))
    assert (w == 0).all()
    opt.update(w, jax.numpy.ones(3, "bfloat16"))
    assert (w == -0.5).all()
    x = jax.numpy.ones(3)
    with pytest.raises(ValueError, match=r"params\[0\] is a JAX array, which cannot be changed; keep"):
        opt.update(x, x)
    with pytest.raises(ValueError, match=r"grads\[0\] is a JAX array"):
        opt.update(w, x, zero=True)
    assert (np.asarray(x) == 1).all() and opt.t == 2


def test_read_only() -> None:
    frozen = np.ones(3)
    frozen.flags.writeable = False
    gpumlp.SGD().update(np.ones(3), frozen)
    with pytest.raises(ValueError, match=r"grads\[0\] is read-only; pass a writable array"):
        gpumlp.SGD().update(np.ones(3), frozen, zero=True)


class Interface:
    """What Numba's device arrays, or PyTorch's on a GPU, tell of themselves."""

    def __init__(self, array: Any, read_only: bool = False) -> None:
        said = dict(array.__cuda_array_interface__)
        self.held, said["data"] = array, (said["data"][0], read_only)
        self.__cuda_array_interface__ = said


class Capsule:
    """An array that knows DLPack only."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **how: Any) -> Any:
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("wrap", [Interface, Capsule])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5, "scale": 2.0}])
def test_arrays_on_the_device(wrap: Any, options: dict) -> None:
    if cuda_problem():
        pytest.skip("no CUDA device")
    import cupy

    p, g, opt = cupy.ones((4, 6), "f4"), cupy.ones((4, 3), "f4"), gpumlp.Adam(lr=0.1)
    q, plain = cupy.ones((4, 3), "f4"), gpumlp.Adam(lr=0.1)
    for _ in range(3):
        opt.update([wrap(p[:, ::2])], [wrap(g)], **options)
        plain.update([q], [g], **options)
    close(p[:, ::2].get(), q.get(), "optimizer")
    assert (p[:, 1::2] == 1).all()
    with pytest.raises(TypeError, match=r"params\[0\] is cupy .* but grads\[0\] is numpy .*same device"):
        plain.update(wrap(q), g.get())
    if wrap is Interface:
        with pytest.raises(ValueError, match=r"params\[0\] is read-only"):
            plain.update(Interface(q, read_only=True), g)
