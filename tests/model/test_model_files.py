"""Model files: what goes in comes out, and every kind of damage is refused with a reason."""

from __future__ import annotations

import gc
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

import gpumlp
from gpumlp.errors import ModelFileError
from gpumlp.model.load import load_model
from gpumlp.model.saved import save_model
from gpumlp.tables import read_table

DEVICE = os.environ.get("GPUMLP_TEST_DEVICE", "cpu").split(",")[0]


def make(**options) -> gpumlp.MLP:
    model = gpumlp.MLP([3, 5, 4, 2], ["tanh", "relu"], dropout=[0.1, 0.0], device=DEVICE, **options)
    model.output = "softmax"
    return model


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.npz"
    save_model(make(), path, {"classes": ["a", "ü"]})
    return path


def rewrite(path, changes=None, drop=(), **arrays) -> None:
    """The same file with some entries changed, written as before there was a digest of the arrays."""
    with np.load(path) as old:
        content = {name: old[name] for name in old.files if name not in drop}
    if "header" in content:
        new = {**json.loads(content["header"].tobytes()), **(changes or {})}
        new.pop("digest", None)
        content["header"] = np.frombuffer(json.dumps(new).encode(), np.uint8)
    np.savez(path, **{**content, **arrays})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_is_exact(tmp_path, dtype):
    model = make(dtype=dtype, seed=3)
    save_model(model, tmp_path / "m.npz", {"n": [1, 2.5, None, "x"]})
    copy = load_model(tmp_path / "m.npz", DEVICE)
    for (w, b), (w2, b2) in zip(model.get_parameters(), copy.get_parameters(), strict=True):
        np.testing.assert_array_equal(w, w2)
        np.testing.assert_array_equal(b, b2)
        assert w2.dtype == dtype
    assert copy.layer_sizes == model.layer_sizes and copy.activations == model.activations
    assert (
        copy.dropouts == model.dropouts
        and copy.output == "softmax"
        and copy.extra == {"n": [1, 2.5, None, "x"]}
    )
    X = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_array_equal(model.predict_proba(X), copy.predict_proba(X))


def test_linear_model_and_public_names(tmp_path):
    model = gpumlp.MLP([3, 1], device=DEVICE)
    model.save(tmp_path / "m.npz")
    copy = gpumlp.load(tmp_path / "m.npz", DEVICE)
    assert copy.layer_sizes == [3, 1] and copy.extra == {} and copy.output == "identity"


def test_extra_survives_another_save(saved, tmp_path):
    load_model(saved, DEVICE).save(tmp_path / "again.npz")
    assert load_model(tmp_path / "again.npz", DEVICE).extra == {"classes": ["a", "ü"]}


def test_every_truncation_is_refused(saved):
    data = saved.read_bytes()
    for length in {0, 1, 3, 4, 50, len(data) // 2, len(data) - 30, len(data) - 1}:
        saved.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"m\.npz' is not a usable gpumlp model"):
            load_model(saved, DEVICE)


def test_flipped_bits_in_the_weights_are_refused(saved):
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        start = archive.getinfo("w1.npy").header_offset
    data[start + 200] ^= 0xFF
    saved.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(saved, DEVICE)


def test_other_version_names_both(saved):
    rewrite(saved, {"format_version": 99, "written_by": "gpumlp 7.1"})
    with pytest.raises(
        ModelFileError,
        match=r"format version 99 \(written by gpumlp 7\.1\).*gpumlp "
        + gpumlp.__version__.replace(".", r"\.")
        + ".*format version 1",
    ):
        load_model(saved, DEVICE)


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("where", ["w0", "header", "file"])
def test_pickles_are_never_run(saved, monkeypatch, tmp_path, where):
    monkeypatch.chdir(tmp_path)
    bomb = np.array([_Bomb()], object)
    if where == "file":
        saved.write_bytes(pickle.dumps(_Bomb()))
    else:
        rewrite(saved, **{where: bomb})
    with pytest.raises(ModelFileError, match="pickled objects" if where != "file" else r"not an \.npz file"):
        load_model(saved, DEVICE)
    assert not os.path.exists("exploded")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "other"}, "does not say"),
        ({"layer_sizes": [3]}, "layer_sizes"),
        ({"layer_sizes": [3, -5, 4, 2]}, "layer_sizes"),
        ({"layer_sizes": [3, 5, 4, 2, 2]}, "arrays b0, b1, b2, w0, w1, w2, expected"),
        (
            {"layer_sizes": [3, 10**12, 4, 2]},
            r"array w0 is float32 of shape \(3, 5\), expected float32 of \(3, 1000000000000\)",
        ),
        ({"activations": ["tanh", "cosh"]}, "unknown activation 'cosh'"),
        ({"activations": ["tanh"]}, "has 1 entries"),
        ({"activations": [["tanh"], "relu"]}, "not a usable"),
        ({"activations": None}, "header's 'activations' is None"),
        ({"dropout": [0.1, 1.5]}, "dropout=1.5"),
        ({"dtype": "float64"}, "array w0 is float32"),
        ({"dtype": "object"}, "dtype is 'object'"),
        ({"output": "eval"}, "output is 'eval'"),
        ({"extra": "text"}, "header's 'extra'"),
    ],
)
def test_headers_that_lie(saved, header, message):
    rewrite(saved, header)
    with pytest.raises(ModelFileError, match=message):
        load_model(saved, DEVICE)


@pytest.mark.parametrize(
    ("arrays", "drop", "message"),
    [
        (
            {"w1": np.zeros((4, 5), np.float32)},
            (),
            r"array w1 is float32 of shape \(4, 5\), expected float32 of \(5, 4\)",
        ),
        ({"b2": np.array([1, np.nan], np.float32)}, (), "array b2 has values that are NaN"),
        ({}, ("b1",), "expected b0, b1, b2"),
        ({}, ("header",), "no model header"),
        ({"header": np.zeros(3)}, (), "header is float64"),
        ({"header": np.frombuffer(b"{]", np.uint8)}, (), "not JSON"),
        ({"header": np.frombuffer(b"[" * 100_000, np.uint8)}, (), "not JSON"),
        ({"evil": np.zeros(3)}, (), "arrays .*evil"),
    ],
)
def test_arrays_that_do_not_fit(saved, arrays, drop, message):
    rewrite(saved, drop=drop, **arrays)
    with pytest.raises(ModelFileError, match=message):
        load_model(saved, DEVICE)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.npz", DEVICE)


def test_nothing_unusable_is_saved(saved):
    before = saved.read_bytes()
    model = make()
    w = [(w.copy(), b.copy()) for w, b in model.get_parameters()]
    w[1][0][0, 0] = np.inf
    model.set_parameters(w)
    with pytest.raises(ValueError, match="layer 1 has parameters that are NaN or infinite"):
        save_model(model, saved)
    for extra in ({"x": float("nan")}, {"x": np.float32(1)}, {"x": {1, 2}}):
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            save_model(make(), saved, extra)
    assert saved.read_bytes() == before


def test_a_failing_write_keeps_the_old_model(saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space") as caught:
        save_model(make(seed=9), saved)
    assert caught.value.filename == str(saved)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == ["m.npz"]


def test_saving_to_a_missing_directory_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no directory .*no; make it first"):
        make().save(tmp_path / "no" / "m.npz")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning", "error::ResourceWarning")
def test_damaged_files_are_closed(saved, tmp_path):
    path = tmp_path / "cut.npz"
    path.write_bytes(saved.read_bytes()[:200])
    for read in (lambda: gpumlp.load(path, "cpu"), lambda: read_table(str(path))):
        with pytest.raises(ValueError, match="damaged"):
            read()
        gc.collect()
