"""The operations that a plan is made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from gpumlp.backends.contract import Extents, check_gemm, check_launch, of_member
from gpumlp.kernels.kernel import Kernel

__all__ = ["AllReduce", "Computation", "Gemm", "Launch", "Op"]


@dataclass(eq=False)
class Launch:
    """One kernel over a `rows` x `cols` space; TypeError or ValueError if the arrays do not fit.

    Parameters
    ----------
    kernel : Kernel
    arrays : dict of name -> array
        Arrays of the backend.  Non-raw ones are 2-D with unit column stride, or 1-D (then they are one row:
        `rows` must be 1).  2-D raw arrays have unit column stride as well.
    scalars : dict of name -> number
    rows, cols : int
        The index space.
    segments : list of (start, stop, decay), optional
        For a masked kernel: consecutive ranges, together all columns; `decay` 1.0 for weights and 0.0 for
        biases.
    tick : str
        "first" for the first kernel of a step, "last" for the last one, else "".  The counters `steps.step`
        are [steps done, number of the running step + 1]: the first kernel reads k = step[0] and sets step[1]
        = k + 1; all others read k = step[1] - 1; the last one sets step[0] = step[1].  No kernel writes what
        it reads, so blocks need no order.
    extents : dict of name -> tuple of int, optional
        Least shapes of raw arrays.  Their bodies index them as they like, so the index space does not tell:
        whoever makes the plan knows which rows and columns it will ask for.
    members : int, optional
        So many launches as one: every array has a leading axis of that length, and the kernel runs for each
        of its items as if it were alone.  All else is said of one member, but a scalar may be a sequence of
        numbers, one for each.
    shared : collection of str
        Raw arrays without that axis, which all members read.
    """

    kernel: Kernel
    arrays: dict[str, Any]
    scalars: dict[str, Any]
    rows: int
    cols: int
    segments: Sequence[tuple[int, int, float]] | None = None
    tick: str = ""
    extents: Extents | None = None
    members: int | None = None
    shared: Collection[str] = ()

    def __post_init__(self) -> None:
        check_launch(
            self.kernel,
            self.arrays,
            self.scalars,
            self.rows,
            self.cols,
            self.segments,
            self.extents,
            self.members,
            self.shared,
        )

    def member(self, j: int) -> Launch:
        """The launch of member `j` alone."""
        arrays = {name: array if name in self.shared else array[j] for name, array in self.arrays.items()}
        scalars = {name: of_member(value, j) for name, value in self.scalars.items()}
        return Launch(
            self.kernel, arrays, scalars, self.rows, self.cols, self.segments, self.tick, self.extents
        )


@dataclass(eq=False)
class Gemm:
    """c = op(a) @ op(b), row-major 2-D arrays with unit column stride (views of padded buffers); c is
    overwritten.  TypeError or ValueError if they do not fit.

    On CUDA, a and b may be float16 (or bfloat16, stored as uint16) and c the same or float32; sums are
    float32.  With `tf32`, float32 factors are rounded to TF32; executors on the host have no such arithmetic.

    With members, c is 3-D: c[j] = op(a[j]) @ op(b[j]), where an array that is 2-D is the same for all.
    """

    a: Any
    b: Any
    c: Any
    trans_a: bool = False
    trans_b: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        check_gemm(self.a, self.b, self.c, self.trans_a, self.trans_b, self.tf32)

    @property
    def members(self) -> int | None:
        """Number of products; None without the axis of members."""
        return len(self.c) if self.c.ndim == 3 else None

    def member(self, j: int) -> Gemm:
        """The product of member `j` alone."""
        a, b = (array[j] if array.ndim == 3 else array for array in (self.a, self.b))
        return Gemm(a, b, self.c[j], self.trans_a, self.trans_b, self.tf32)


@dataclass(eq=False)
class AllReduce:
    """Add up what all ranks have in `buffer`, a contiguous array: every rank's plan has it at the same place.

    Parameters
    ----------
    communicator : Communicator
        One that moves arrays of this backend.
    buffer : array
    into : array, optional
        Receives the sum instead of `buffer`.
    scratch : array, optional
        An array like `buffer`: then the sum is made in place, in a balanced tree of neighbours (see
        `Communicator.add_doubling`).
    gathered : array (ranks, *buffer.shape), optional
        Receives the buffers of all ranks, and nothing is added: launches that follow do that, in an order of
        their own.
    """

    communicator: Any
    buffer: Any
    into: Any = None
    scratch: Any = None
    gathered: Any = None

    def run(self) -> None:
        """Exchange now; on CUDA in the current stream."""
        if self.gathered is not None:
            self.communicator.all_gather(self.buffer, self.gathered)
        elif self.scratch is not None:
            self.communicator.add_doubling(self.buffer, self.scratch)
        else:
            self.communicator.all_reduce(self.buffer, self.into)

    @property
    def arrays(self) -> dict[str, Any]:
        """All of its arrays."""
        given = {n: getattr(self, n) for n in ("buffer", "into", "scratch", "gathered")}
        return {name: array for name, array in given.items() if array is not None}

    @property
    def written(self) -> list[Any]:
        """Those that it writes."""
        others = [array for name, array in self.arrays.items() if name != "buffer"]
        return others if self.gathered is not None or self.into is not None else [self.buffer, *others]


Computation = Launch | Gemm
Op = Computation | AllReduce
