"""Operations of many members at once: each does what it would do alone, on every executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.activations import backward_kernel, dropout_scalars, forward_kernel
from gpumlp.kernels.losses import training_kernel
from gpumlp.kernels.rows import GATHER, SUM
from tolerances import close

import gpumlp
from gpumlp.backends.accesses import dependencies
from gpumlp.backends.base import Steps
from gpumlp.backends.operations import Gemm, Launch, Op
from gpumlp.optimizers import OPTIMIZERS

MEMBERS = [1, 2, 3, 24]
STEPS = 3


def same(backend: Any, actual: Any, expected: Any) -> None:
    """To the bit on the host; cuBLAS may add up in another order."""
    actual, expected = backend.to_numpy(actual), backend.to_numpy(expected)
    if backend.xp is np:
        np.testing.assert_array_equal(actual, expected)
    else:
        close(actual, expected, "small plan")


def stacked(backend: Any, rng: Any, shape: tuple[int, ...], dtype: Any, pad: int = 3) -> Any:
    """Random numbers in a view of a buffer in which members and rows are further apart than they must be."""
    buffer = rng.standard_normal((shape[0], shape[1] + 1, *(n + pad for n in shape[2:])))
    return backend.asarray(buffer.astype(dtype))[tuple(slice(n) for n in shape)]


# ---- products -----------------------------------------------
@pytest.mark.memory
@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("trans", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shared", ["", "a", "b", "ab"])
@pytest.mark.parametrize("members", MEMBERS)
def test_each_product_is_that_of_its_member(
    backend: Any, dtype: Any, members: int, shared: str, trans: tuple[bool, bool]
) -> None:
    rng = np.random.default_rng([members, *trans])
    m, k, n = (int(size) for size in rng.integers(1, 40, 3))
    shapes = {"a": (k, m) if trans[0] else (m, k), "b": (n, k) if trans[1] else (k, n)}
    arrays = {name: stacked(backend, rng, (members, *shape), dtype) for name, shape in shapes.items()}
    arrays |= {name: arrays[name][0] for name in shared}
    buffer = backend.zeros((members, m + 2, n + 5), dtype)
    c = buffer[:, :m, :n]
    backend.record([Gemm(**arrays, c=c, trans_a=trans[0], trans_b=trans[1])], Steps(backend)).run()
    backend.synchronize()
    for j in range(members):
        one = [arrays[name] if name in shared else arrays[name][j] for name in "ab"]
        alone = backend.zeros((m, n), dtype)
        backend.record([Gemm(*one, alone, *trans)], Steps(backend)).run()
        same(backend, c[j], alone)
        left, right = (backend.to_numpy(x) for x in one)
        product = (left.T if trans[0] else left) @ (right.T if trans[1] else right)
        close(backend.to_numpy(c[j]), product, "small plan")
    assert not backend.to_numpy(buffer[:, m:]).any(), "a row behind a member was written"
    assert not backend.to_numpy(buffer[:, :, n:]).any(), "columns beside a member were written"


@pytest.mark.parametrize("stored", ["float32 tf32", "float16", "uint16"])
def test_products_of_members_on_tensor_cores(backend: Any, stored: str) -> None:
    if backend.name != "cuda":
        pytest.skip("the host has no such arithmetic")
    dtype, tf32 = stored.split(maxsplit=1)[0], "tf32" in stored
    numbers = np.random.default_rng(0).integers(-4, 5, (2, 3, 8, 16)).astype(np.float32)  # all of them exact
    bits = numbers.view(np.uint32) >> 16 if dtype == "uint16" else numbers
    a, b = (backend.asarray(x.astype(dtype)) for x in bits)
    c = backend.zeros((3, 8, 8), "float32")
    backend.record([Gemm(a, b, c, trans_b=True, tf32=tf32)], Steps(backend)).run()
    np.testing.assert_array_equal(backend.to_numpy(c), numbers[0] @ numbers[1].transpose(0, 2, 1))


@pytest.mark.parametrize(
    "a, b, c, text",
    [
        ((2, 3, 4), (2, 4, 5), (3, 3, 5), r"'a' has shape \(2, 3, 4\); expected an axis of 3 members first"),
        ((3, 4), (2, 4, 5), (3, 5), r"'b' has shape \(2, 4, 5\); expected no members first"),
        ((2, 3, 4), (2, 5, 4), (2, 3, 4), r"gemm of shapes \(2, 3, 4\) and \(2, 5, 4\) into"),
        ((1, 2, 3, 4), (4, 5), (3, 5), "'a' has shape .* expected 2-D, or 3-D for members"),
    ],
)
def test_products_of_members_refuse_what_does_not_fit(
    backend: Any, a: Any, b: Any, c: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        Gemm(*(backend.zeros(shape, "float32") for shape in (a, b, c)))


def test_members_that_overlap_are_not_written(backend: Any) -> None:
    a, b = backend.zeros((3, 4, 4), "float32"), backend.zeros((4, 4), "float32")
    one = backend.xp.lib.stride_tricks.as_strided(backend.zeros(64, "float32"), (3, 4, 4), (32, 16, 4))
    Gemm(one, b, a)
    with pytest.raises(ValueError, match=r"'c' has strides .* its members overlap"):
        Gemm(a, b, one)
    relu = forward_kernel("relu")
    Launch(relu, {"z": one, "a": a}, {}, 4, 4, members=3)
    with pytest.raises(ValueError, match=r"'a' has strides .* its members overlap"):
        Launch(relu, {"z": a, "a": one}, {}, 4, 4, members=3)


# ---- kernels -----------------------------------------------
KEYS = [3, 2**62 + 12345, 7, *range(100, 121)]
RATES = [0.5, 0.1, 0.25, *np.linspace(0.05, 0.9, 21)]


def drops(members: int) -> dict[str, Any]:
    """Each member's own rate and key."""
    each = [dropout_scalars(float(r), k, 1) for r, k in zip(RATES[:members], KEYS, strict=False)]
    return {name: [values[name] for values in each] for name in each[0]}


def filled(backend: Any, columns: Any, table: Any, rows: Any = None) -> Steps:
    """Steps with a table (n_steps, [members,] columns) and orders ([members,] n_rows)."""
    members = table.shape[1] if table.ndim == 3 else None
    n_rows = 0 if rows is None else rows.shape[-1]
    steps = Steps(backend, columns, table.dtype, len(table), n_rows, members)
    steps.values[:] = table
    if rows is not None:
        steps.order[:] = rows
    steps.send()
    return steps


@pytest.mark.memory
@pytest.mark.parametrize("how", ["launch", "record"])
@pytest.mark.parametrize("cols", [8, 13])
@pytest.mark.parametrize("members", MEMBERS)
def test_dropout_has_each_members_own_key_rate_and_step(
    backend: Any, dtype: Any, members: int, cols: int, how: str
) -> None:
    rng, rows, kernel = np.random.default_rng(members), 11, forward_kernel("tanh", True)
    z = stacked(backend, rng, (members, rows, cols), dtype, pad=8 - cols % 4)
    a, alone = backend.zeros((members, rows, cols), dtype), backend.zeros((rows, cols), dtype)
    scalars, table = drops(members), rng.integers(0, 1000, (1, members, 2)).astype(dtype)
    stepped = {"t_low": table[0, :, 0].tolist(), "t_high": table[0, :, 1].tolist()}
    if how == "launch":
        backend.launch(kernel, {"z": z, "a": a}, scalars, stepped, rows=rows, cols=cols, members=members)
    else:
        op = Launch(kernel, {"z": z, "a": a}, scalars, rows, cols, tick="first", members=members)
        backend.record([op], filled(backend, ("t_low", "t_high"), table)).run()
    for j in range(members):
        own = {name: values[j] for name, values in scalars.items()}
        drawn = {name: values[j] for name, values in stepped.items()}
        backend.launch(kernel, {"z": z[j], "a": alone}, own, drawn, rows=rows, cols=cols)
        np.testing.assert_array_equal(backend.to_numpy(a[j]), backend.to_numpy(alone))


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("size", [5, 3000])
def test_row_kernels_of_members_sum_as_alone(backend: Any, dtype: Any, members: int, size: int) -> None:
    rng, rows = np.random.default_rng(size), 3
    chunk = -(-size // rows)
    values = backend.asarray(rng.standard_normal((members, size)).astype(dtype))
    partial, alone = backend.zeros((members, rows + 1), dtype), backend.zeros(rows, dtype)
    sizes = {"n": size, "chunk": chunk}
    arrays = {"values": values, "partial": partial}
    backend.launch(SUM, arrays, sizes, rows=rows, cols=chunk, members=members)
    everyone = backend.zeros((members, rows), dtype)
    arrays = {"values": values[0], "partial": everyone}
    backend.launch(SUM, arrays, sizes, rows=rows, cols=chunk, members=members, shared=["values"])
    for j in range(members):
        backend.launch(SUM, {"values": values[j], "partial": alone}, sizes, rows=rows, cols=chunk)
        np.testing.assert_array_equal(backend.to_numpy(partial[j, :rows]), backend.to_numpy(alone))
        np.testing.assert_array_equal(backend.to_numpy(everyone[j]), backend.to_numpy(partial[0, :rows]))
    assert not backend.to_numpy(partial[:, rows:]).any()


@pytest.mark.cuda_sample(7)
@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("size", [64, 37])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_weights_and_biases_of_flat_members(
    backend: Any, dtype: Any, name: str, members: int, size: int
) -> None:
    """An optimiser's launch over (members, flat size): no decay for biases, in each of them."""
    rng, rule = np.random.default_rng(size), OPTIMIZERS[name](lr=0.01, weight_decay=0.1)
    kernel, segments = rule.kernel(), [(0, size - 5, 1.0), (size - 5, size, 0.0)]
    names = ("g", "p", *rule.arrays())
    start = {name: rng.random((members, size)).astype(dtype) for name in names}
    arrays = {name: backend.asarray(a) for name, a in start.items()}
    ones = {name: backend.asarray(a.copy()) for name, a in start.items()}
    stepped = {name: rng.uniform(0.1, 1, members).tolist() for name in kernel.stepped}
    space = {"rows": 1, "cols": size, "segments": segments}
    backend.launch(kernel, arrays, rule.scalars(kernel), stepped, members=members, **space)
    for j in range(members):
        one = {name: a[j] for name, a in ones.items()}
        own = {name: values[j] for name, values in stepped.items()}
        backend.launch(kernel, one, rule.scalars(kernel), own, **space)
    for key, array in arrays.items():
        np.testing.assert_array_equal(backend.to_numpy(array), backend.to_numpy(ones[key]))


@pytest.mark.parametrize(
    "z, given, error, text",
    [
        ((3, 4, 8), {"members": 2}, ValueError, r"'z' has shape \(3, 4, 8\); expected an axis of 2 members"),
        ((8,), {"members": 2}, ValueError, r"'z' has shape \(8,\); expected an axis of 2 members"),
        ((2, 3, 8), {"members": 2}, ValueError, r"'z' has shape \(3, 8\), smaller .* for each member"),
        ((2, 4, 8), {"members": 0}, ValueError, "members=0; expected at least 1"),
        ((2, 4, 8), {"members": 2, "shared": ["z"]}, ValueError, "raw arrays that are only read"),
        ((4, 8), {"shared": ["z"]}, ValueError, "members=None; expected at least 1"),
        ((2, 4, 8), {}, ValueError, r"'z' has shape \(2, 4, 8\); expected 1-D or 2-D"),
    ],
)
def test_launches_of_members_refuse_what_does_not_fit(
    backend: Any, z: Any, given: Any, error: Any, text: str
) -> None:
    kernel = forward_kernel("relu")
    arrays = {"z": backend.zeros(z, "float32"), "a": backend.zeros((2, 4, 8), "float32")}
    with pytest.raises(error, match=text):
        Launch(kernel, arrays, {}, 4, 8, **given)
    with pytest.raises(error, match=text):
        backend.launch(kernel, arrays, {}, rows=4, cols=8, **given)


def test_members_have_one_value_or_one_each(backend: Any) -> None:
    arrays = {name: backend.zeros((2, 4, 8), "float32") for name in "za"}
    kernel, scalars, stepped = forward_kernel("relu", True), drops(2), {"t_low": 0.0, "t_high": 0.0}
    space = {"rows": 4, "cols": 8, "members": 2}
    backend.launch(kernel, arrays, scalars, stepped, **space)
    with pytest.raises(ValueError, match=r"'key' has shape \(3,\); expected a number, or one for each of 2"):
        backend.launch(kernel, arrays, {**scalars, "key": [1, 2, 3]}, stepped, **space)
    with pytest.raises(
        ValueError, match=r"'t_low' has shape \(1,\); expected a number, or one for each of 2"
    ):
        backend.launch(kernel, arrays, scalars, {**stepped, "t_low": [1.0]}, **space)


def test_the_table_has_the_members_of_the_launch(backend: Any) -> None:
    op = Launch(
        forward_kernel("relu", True),
        {name: backend.zeros((2, 4, 8), "float32") for name in "za"},
        drops(2),
        4,
        8,
        members=2,
    )
    columns = ("t_low", "t_high")
    for members in (None, 1, 3):
        with pytest.raises(ValueError, match=f"members=2; the step table has members={members}"):
            backend.record([op], Steps(backend, columns, members=members))
    backend.record([op], Steps(backend, columns, members=2))
    with pytest.raises(ValueError, match="members=0; expected at least 1"):
        Steps(backend, columns, members=0)


def test_tables_are_filled_by_step_and_member(backend: Any) -> None:
    steps = Steps(backend, ("lr", "c1"), np.float64, n_steps=4, n_rows=5, members=3)
    lr, c1 = np.arange(12.0).reshape(4, 3), np.arange(4.0)[:, None]
    steps.fill({"lr": lr, "c1": c1})
    steps.order[:] = np.arange(15).reshape(3, 5)
    steps.send()
    table, index = backend.to_numpy(steps.table), backend.to_numpy(steps.index)
    np.testing.assert_array_equal(table, np.stack([lr, np.broadcast_to(c1, (4, 3))], -1))
    np.testing.assert_array_equal(index, np.arange(15).reshape(3, 5))


# ---- a training step -----------------------------------------------
class Networks:
    """n_in-hidden-n_out with biases, dropout and Adam, written by hand, of members or (None) of one."""

    def __init__(self, backend: Any, given: dict[str, np.ndarray], drop: Any, members: int | None) -> None:
        self.backend, self.members = backend, members
        axis = () if members is None else (members,)
        dtype, (n_in, hidden, n_out), batch = given["X"].dtype, SIZES, BATCH
        flat = backend.asarray(given["flat"].copy())
        self.arrays = {"p": flat, "g": backend.zeros(flat.shape, dtype)}
        self.arrays |= {name: backend.zeros(flat.shape, dtype) for name in "vs"}
        X, y = backend.asarray(given["X"]), backend.asarray(given["y"])
        self.steps = filled(backend, given["columns"], given["table"], given["order"])
        split = (n_in + 1) * hidden

        def weights(of: Any, n: int) -> Any:
            part = of[..., :split] if n == 0 else of[..., split:]
            return part.reshape(*axis, -1, (hidden, n_out)[n])

        full = [backend.zeros((*axis, batch, n + 4), dtype)[..., : n + 1] for n in (n_in, hidden)]
        for array, n in zip(full, (n_in, hidden), strict=True):
            array[..., n] = 1
        z, d0 = (backend.zeros((*axis, batch, hidden), dtype) for _ in range(2))
        out, d1 = (backend.zeros((*axis, batch, n_out), dtype) for _ in range(2))
        self.row_loss = backend.zeros((*axis, STEPS * batch), dtype)
        rule = gpumlp.Adam(l2=1e-3)
        update = rule.kernel()
        segments = [(0, split - hidden, 1.0), (split - hidden, split, 0.0)]
        segments += [(split, flat.shape[-1] - n_out, 1.0), (flat.shape[-1] - n_out, flat.shape[-1], 0.0)]
        one, stride, index = {"members": members}, {"stride": batch}, self.steps.index
        p, g = self.arrays["p"], self.arrays["g"]
        # all read the same rows; a launch of one has nothing to share
        both = {**one, "shared": ("X",)} if members else one
        rows = {**one, "shared": ("y",)} if members else one
        data = {"x": full[0][..., :n_in], "index": index, "X": X}
        loss = {"z": out, "d": d1, "index": index, "y": y, "row_loss": self.row_loss}
        relu, back = forward_kernel("relu", True), backward_kernel("relu", True)
        a = full[1][..., :hidden]
        self.ops: list[Op] = [
            Launch(GATHER, data, stride, batch, n_in, tick="first", **both),
            Gemm(full[0], weights(p, 0), z),
            Launch(relu, {"z": z, "a": a}, drop, batch, hidden, **one),
            Gemm(full[1], weights(p, 1), out),
            Launch(training_kernel("softmax_cross_entropy", False), loss, stride, batch, n_out, **rows),
            Gemm(d1, weights(p, 1)[..., :-1, :], d0, trans_b=True),
            Launch(back, {"a": a, "d": d0}, drop, batch, hidden, **one),
            Gemm(full[0], d0, weights(g, 0), trans_a=True),
            Gemm(full[1], d1, weights(g, 1), trans_a=True),
            Launch(
                update, self.arrays, rule.scalars(update), 1, flat.shape[-1], segments, tick="last", **one
            ),
        ]

    def plan(self) -> Any:
        return self.backend.record(self.ops, self.steps)


SIZES, BATCH = (9, 12, 3), 7


def population(members: int, dtype: Any) -> dict[str, Any]:
    """Data for all, and of each its start values, its order of the rows and its values of each step."""
    rng, n_rows = np.random.default_rng(members), STEPS * BATCH
    size = (SIZES[0] + 1) * SIZES[1] + (SIZES[1] + 1) * SIZES[2]
    columns = ("inv_weight", "t_low", "t_high", *gpumlp.Adam(l2=1e-3).kernel().stepped)
    table = rng.uniform(0.01, 1, (STEPS, members, len(columns))).astype(dtype)
    table[..., 1:3] = rng.integers(0, 1000, (STEPS, members, 2))
    return {
        "X": rng.standard_normal((n_rows, SIZES[0])).astype(dtype),
        "y": rng.integers(0, SIZES[2], n_rows, np.int32),
        "flat": rng.standard_normal((members, size)).astype(dtype),
        "order": np.stack([rng.permutation(n_rows).astype(np.int32) for _ in range(members)]),
        "columns": columns,
        "table": table,
    }


@pytest.mark.memory
@pytest.mark.parametrize("members", MEMBERS)
def test_steps_of_members_are_the_steps_of_each(backend: Any, dtype: Any, members: int) -> None:
    given, drop = population(members, dtype), drops(members)
    many = Networks(backend, given, drop, members)
    many.plan().run(STEPS)
    np.testing.assert_array_equal(backend.to_numpy(many.steps.step), [STEPS, STEPS])
    for j in range(members):
        own = {name: given[name][j] for name in ("flat", "order")}
        own["table"] = given["table"][:, j]
        one = Networks(backend, {**given, **own}, {name: v[j] for name, v in drop.items()}, None)
        one.plan().run(STEPS)
        same(backend, many.row_loss[j], one.row_loss)
        for name in one.arrays:
            same(backend, many.arrays[name][j], one.arrays[name])


def test_members_wait_for_each_other_no_more_than_one_network(backend: Any) -> None:
    """Layers of flat buffers take turns in memory with those of other members, but do not overlap."""
    needs = []
    for members in (1, 2, 24):
        networks = Networks(backend, population(members, np.float32), drops(members), members)
        needs.append(dependencies(networks.ops, networks.steps))
    assert needs[0] == needs[1] == needs[2]


def test_the_graph_of_a_step_is_as_large_for_all_members(backend: Any) -> None:
    simgpu = pytest.importorskip("simgpu", reason="counting needs the simulated device")
    if backend.name != "cuda" or not backend.graph:
        pytest.skip("there is no graph")
    counts = []
    for members in (1, 2, 24):
        plan = Networks(backend, population(members, np.float32), drops(members), members).plan()
        backend.synchronize()
        with simgpu.watch() as found:
            plan.run()
            backend.synchronize()
        assert found["graph_launches"] == 1 and found["kernel_launches"] == 0
        counts.append((found["graph_kernels"], sum(found["graph_library_calls"].values())))
    assert counts[0] == counts[1] == counts[2]
