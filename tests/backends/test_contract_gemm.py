"""Matrix products of any shape, transposed or not, in padded buffers: every executor alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract import plan_steps
from tolerances import close

from gpumlp.backends.operations import Gemm

SIZES = [
    (1, 1, 1),
    (2, 3, 4),
    (5, 7, 3),
    (1, 4, 9),
    (6, 1, 1),
    (3, 127, 3),
    (127, 1, 127),
    (32, 16, 33),
    (33, 17, 65),
    (17, 2, 300),
    (9, 64, 256),
    (257, 40, 1),
    (130, 129, 131),
    (5, 7, 0),
    (0, 3, 4),
    (300, 12, 40),
    (90, 13, 40),
    (40, 530, 300),
    (33, 70, 1025),  # several blocks of k, of uneven depth
]


@pytest.mark.parametrize("trans", ["NN", "TN", "NT", "TT"])
@pytest.mark.parametrize("m,n,k", SIZES)
def test_gemm(backend: Any, m: int, n: int, k: int, trans: str, dtype: Any) -> None:
    rng = np.random.default_rng(0)

    def padded(rows: int, cols: int) -> tuple[np.ndarray, Any]:
        host = rng.standard_normal((rows, cols + 3)).astype(dtype)
        return host[:, :cols], backend.asarray(host)[:, :cols]

    trans_a, trans_b = trans[0] == "T", trans[1] == "T"
    (a, da), (b, db) = padded(*((k, m) if trans_a else (m, k))), padded(*((n, k) if trans_b else (k, n)))
    buffer = backend.asarray(np.full((m, n + 3), 77, dtype))
    replay = backend.record([Gemm(da, db, buffer[:, :n], trans_a, trans_b)], plan_steps(backend))
    replay.run()
    first = backend.to_numpy(buffer)
    wide = [x.astype(np.float64) for x in (a.T if trans_a else a, b.T if trans_b else b)]
    close(first[:, :n], wide[0] @ wide[1], "product", scale=max(k, 1))
    assert (first[:, n:] == 77).all()
    replay.run()
    assert np.array_equal(first, backend.to_numpy(buffer))
