"""Random texts: a frame or one sentence, and both readers agree on which."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from csv_texts import csv_text, same_column

from gpumlp.tables import Frame, TableError, read_frame

SEEDS = 400


def outcome(path: str) -> Frame | str:
    try:
        return read_frame(path, modes={"c0": "label"})
    except TableError as error:
        return str(error)


@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_a_frame_or_one_sentence(tmp_path, no_pyarrow, first):
    path = tmp_path / "t.csv"
    for seed in range(first, first + 100):
        path.write_bytes(csv_text(np.random.default_rng(seed)))
        found = outcome(str(path))
        if isinstance(found, str):
            assert str(path) in found and "\n" not in found, (seed, found)
        else:
            assert found.n_rows > 0 and found.columns, seed


@pytest.mark.parametrize("block", [40, 1 << 22])
@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_the_readers_agree(tmp_path, monkeypatch, block, first):
    pytest.importorskip("pyarrow")
    from gpumlp.tables import arrow_csv

    monkeypatch.setattr(arrow_csv, "BLOCK", block)
    path = tmp_path / "t.csv"
    for seed in range(first, first + 100):
        path.write_bytes(csv_text(np.random.default_rng(seed)))
        fast = outcome(str(path))
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "gpumlp.tables.arrow_csv", None)
            plain = outcome(str(path))
        if isinstance(fast, str) or isinstance(plain, str):
            assert fast == plain, seed
        else:
            assert fast.names == plain.names, seed
            differences = [same_column(a, b) for a, b in zip(fast.columns, plain.columns, strict=True)]
            assert not any(differences), (seed, differences)
