"""The generator of dropout masks: known answers of Random123, statistics, and the same mask everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from gpumlp.kernels.activations import dropout_scalars, forward_kernel
from gpumlp.kernels.random import keep_mask, philox4x32
from launching import Padded, run

ONES = 0xFFFFFFFF
#: counter, key, output: kat_vectors of Random123 (philox4x32, 10 rounds)
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def signed(key: int) -> int:
    return key - 2**64 if key >= 2**63 else key


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter: Any, key: Any, words: Any) -> None:
    assert tuple(oracles.philox(counter, key)) == words
    assert tuple(int(w) for w in philox4x32(counter, key[0] | key[1] << 32)) == words
    assert tuple(int(w) for w in philox4x32(counter, signed(key[0] | key[1] << 32))) == words


def mask_of(
    backend: Any, rows: int, cols: int, *, step: int, layer: int, key: int, rate: float
) -> np.ndarray:
    a = Padded(backend, np.ones((rows, cols), np.float32))
    run(
        backend,
        "record",
        forward_kernel("identity", True),
        {"z": a, "a": a},
        dropout_scalars(rate, key, layer),
        {"t_low": float(step % 2**24), "t_high": float(step >> 24)},
        rows=rows,
        cols=cols,
        dtype=np.float32,
    )
    return a.read() > 0


def test_first_words_are_those_of_random123(backend: Any) -> None:
    """Seen through the mask: an element is kept exactly if its word reaches the threshold."""
    for counter, key, words in KNOWN[:1]:
        assert counter == (0, 0, 0, 0)
        for column, word in enumerate(words):
            for threshold, kept in ((word, True), (word + 1, False)):
                scalars = {**dropout_scalars(0.5, signed(key[0] | key[1] << 32), 0), "threshold": threshold}
                a = Padded(backend, np.ones((1, 4), np.float32))
                now = {"t_low": 0.0, "t_high": 0.0}
                kernel = forward_kernel("identity", True)
                run(backend, "launch", kernel, {"z": a, "a": a}, scalars, now, rows=1, cols=4)
                assert (a.read()[0, column] > 0) == kept


@pytest.mark.parametrize(
    "case",
    [
        {"step": 0, "layer": 0, "key": 0, "rate": 0.5},
        {"step": 5, "layer": 1, "key": -1, "rate": 0.1},
        {"step": 2**24 - 1, "layer": 3, "key": 2**62 + 12345, "rate": 0.9},
        {"step": 2**24, "layer": 3, "key": 2**62 + 12345, "rate": 0.9},
        {"step": 2**40 + 2**23 + 1, "layer": 255, "key": -(2**63), "rate": 0.25},
    ],
)
def test_mask_of_every_executor(backend: Any, case: dict) -> None:
    expected = oracles.kept(7, 22, **case)
    assert (mask_of(backend, 7, 22, **case) == expected).all()
    values = {
        **dropout_scalars(case["rate"], case["key"], case["layer"]),
        "t_low": case["step"] % 2**24,
        "t_high": case["step"] >> 24,
    }
    assert (keep_mask((7, 22), values) == expected).all()


def test_masks_differ(backend: Any) -> None:
    """Another step, layer, key or row is another mask."""
    base = {"step": 3, "layer": 1, "key": 42, "rate": 0.5}
    first = mask_of(backend, 16, 64, **base)
    for change in ({"step": 4}, {"step": 3 + 2**24}, {"layer": 2}, {"key": 43}, {"key": 42 + 2**32}):
        other = mask_of(backend, 16, 64, **{**base, **change})
        # 1024 fair coins: 512 agree, standard deviation 16
        assert abs(int((first == other).sum()) - 512) < 6 * 16, change
    assert len({row.tobytes() for row in first}) == 16


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_keep_rate(backend: Any, rate: float) -> None:
    n = 512 * 513
    mask = mask_of(backend, 512, 513, step=1, layer=0, key=99, rate=rate)
    spread = np.sqrt(rate * (1 - rate) / n)
    assert abs(mask.mean() - (1 - rate)) <= 5 * spread
    for part in (mask[:, 0::4], mask[:, 3::4], mask[:256], mask[256:]):
        assert abs(part.mean() - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / part.size)
