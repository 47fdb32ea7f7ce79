"""The archive of arrays and a JSON header: what is written is read, by NumPy too; all else is refused."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from gpumlp.files.archive import Archive, BadFile, write_archive
from gpumlp.files.npz import read_npy, write_npz
from gpumlp.schedules import Cosine
from gpumlp.tables import TableError, read_table

ARRAYS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "part": np.arange(20)[::3],
    "none": np.zeros((0, 3)),
    "one": np.array(2.5),
    "text": np.array(["a", "ü"]),
    "ü": np.array([True, False]),
}
SPEC = {name: (array.dtype, array.shape) for name, array in ARRAYS.items()}


@pytest.fixture
def path(tmp_path) -> Path:
    write_archive(tmp_path / "a.npz", {"x": [1, None, "ü"]}, ARRAYS)
    return tmp_path / "a.npz"


def read(path: Path, spec=SPEC) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        return Archive(file).arrays(spec)


def rewrite(path: Path, method: int = zipfile.ZIP_STORED, **arrays: np.ndarray) -> None:
    """The same archive with other arrays, as NumPy and zipfile write it."""
    with np.load(path) as old:
        content = {**old, **arrays}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in content.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())


def test_what_is_written_is_read_by_numpy_too(path):
    mine = read(path)
    with np.load(path) as theirs:
        assert set(theirs.files) == {"header", *ARRAYS}
        for name, array in ARRAYS.items():
            for found in (mine[name], theirs[name]):
                np.testing.assert_array_equal(found, array)
                assert found.dtype == array.dtype and found.shape == array.shape
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with open(path, "rb") as file:
        header = Archive(file).header
    assert header["x"] == [1, None, "ü"] and header["digest"].startswith("sha256:")


def test_the_same_content_is_the_same_file(path, tmp_path):
    write_archive(tmp_path / "b.npz", {"x": [1, None, "ü"]}, ARRAYS)
    assert (tmp_path / "b.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_numpy_writes_is_read(path, method):
    rewrite(path, method, w=np.asfortranarray(ARRAYS["w"]))
    found = read(path)
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_another_array_with_a_right_checksum_is_refused(path):
    rewrite(path, w=ARRAYS["w"] + 1)
    with pytest.raises(BadFile, match="digest"):
        read(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ARRAYS["w"].astype(">f4"), r"array w is >f4 of shape \(2, 3\), expected float32"),
        (ARRAYS["w"].astype("f8"), r"array w is float64 of shape \(2, 3\), expected float32"),
        (ARRAYS["w"].T, r"array w is float32 of shape \(3, 2\)"),
        (np.array([1, None]), "pickled objects"),
        (np.zeros(3, [("a", "f4")]), "structured"),
    ],
)
def test_arrays_of_another_kind_are_refused(path, array, message):
    rewrite(path, w=array)
    with pytest.raises(BadFile, match=message):
        read(path)


def test_methods_that_numpy_does_not_use_are_refused(path):
    rewrite(path, zipfile.ZIP_LZMA)
    with pytest.raises(BadFile, match="compressed by a method"):
        read(path)


def test_two_members_of_one_name_are_refused(path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("w.npy", b"")
    with pytest.raises(BadFile, match="the same name"):
        read(path)


def bomb(path: Path, name: str, shape: tuple[int, ...], mega: int = 96) -> None:
    """`name` becomes zeros of 96 MiB, packed into 96 KiB, whose header says `shape`."""
    with zipfile.ZipFile(path) as old:
        content = {n: old.read(n) for n in old.namelist() if n != f"{name}.npy"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for member, data in content.items():
            archive.writestr(member, data)
        with archive.open(f"{name}.npy", "w") as file:
            head = io.BytesIO()
            fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(head, fields)
            file.write(head.getvalue())
            for _ in range(mega):
                file.write(bytes(1 << 20))


@pytest.mark.parametrize(
    ("name", "shape", "mega"),
    [("header", (96 << 20,), 96), ("header", (32 << 20,), 32), ("w", (96 << 20,), 96), ("w", (2, 3), 96)],
)
def test_bombs_are_refused_before_they_are_unpacked(path, name, shape, mega):
    bomb(path, name, shape, mega)
    tracemalloc.start()
    try:
        with pytest.raises(BadFile):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_that_is_what_it_says_is_refused_too(path):
    bomb(path, "w", (96 << 20,))
    with pytest.raises(BadFile, match="would unpack from"):
        read(path, {**SPEC, "w": (np.uint8, (96 << 20,))})


@pytest.mark.parametrize("states", [16, 3000, 10**5])
def test_a_header_that_names_too_much_costs_little(tmp_path, states):
    model = gpumlp.MLP([1, 1], device="numpy")
    model.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as archive:
        header = json.loads(archive["header"].tobytes())
    header |= {"layer_sizes": [1] * 1001, "trainer": {"state": [f"s{n}" for n in range(states)]}}
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with open(tmp_path / "m.npz", "wb") as file:
        write_npz(file, {"header": text})
    tracemalloc.start()
    try:
        with pytest.raises(gpumlp.ModelFileError):
            gpumlp.load(tmp_path / "m.npz", "numpy")
        assert tracemalloc.get_traced_memory()[1] < (64 << 20) + 20 * text.size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("states", [0, 16])
def test_a_short_header_that_names_millions_costs_little(tmp_path, states):
    """Packed it has a few thousand bytes."""
    header = {
        "format": "gpumlp-model",
        "format_version": 1,
        "layer_sizes": [1] * 300_000,
        "activations": [],
        "dropout": 0.0,
        "dtype": "float32",
        "output": "identity",
        "extra": {},
        "trainer": {"state": [f"s{n}" for n in range(states)]},
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez_compressed(tmp_path / "m.npz", header=text)
    tracemalloc.start()
    try:
        with pytest.raises(gpumlp.ModelFileError, match=r"arrays \(none\), expected .* for these layers"):
            gpumlp.load(tmp_path / "m.npz", "numpy")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_messages_are_short_whatever_is_in_a_file(tmp_path):
    gpumlp.MLP([1, 1], device="numpy").save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    for change in (
        {"activations": ["relu"] * 10**5},
        {"dropout": [0.1] * 10**5},
        {"activations": ["x" * 10**5]},
    ):
        text = json.dumps({**header, **change}).encode()
        with open(tmp_path / "m.npz", "wb") as file:
            write_npz(file, {**arrays, "header": np.frombuffer(text, np.uint8)})
        with pytest.raises(gpumlp.ModelFileError) as caught:
            gpumlp.load(tmp_path / "m.npz", "numpy")
        assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path, kind):
    for ending, error, read_it in (
        (".npz", gpumlp.ModelFileError, lambda path: gpumlp.load(path, "numpy")),
        (".npz", gpumlp.ModelFileError, lambda path: gpumlp.Trainer.load(path, device="numpy")),
        (".npz", TableError, lambda path: read_table(str(path))),
        (".npy", TableError, lambda path: read_table(str(path), target="0")),
    ):
        path = tmp_path / f"x{ending}"
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(error, match=f"x{ending}'.* it is a pipe or a device"):
            read_it(path)


@pytest.mark.parametrize(
    "head", ["{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3L), }", "{}", "(1,"]
)
def test_headers_of_arrays(head):
    text = head.ljust(117) + "\n"
    data = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + ARRAYS["w"].tobytes()
    if "3L" in head:  # of Python 2
        np.testing.assert_array_equal(read_npy(io.BytesIO(data)), ARRAYS["w"])
        for wrong in (
            data[:-1],
            data + b"\0",
            data.replace(b"(2, 3L)", b"(3, 3L)"),
            data.replace(b"<f4", b"<f8"),
        ):
            with pytest.raises(BadFile):
                read_npy(io.BytesIO(wrong))
    else:
        with pytest.raises(BadFile, match="header of an array cannot be read"):
            read_npy(io.BytesIO(data))


def test_objects_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="Python objects"), open(tmp_path / "x", "wb") as file:
        write_npz(file, {"a": np.array([None])})


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\5\6" + bytes(18), b"hello"])
def test_no_archive(data):
    with pytest.raises(BadFile):
        Archive(io.BytesIO(data))


# ---- models and trainings -----------------------------------------------
def test_a_file_without_a_digest_is_read_and_goes_on_to_the_bit():
    path = Path(__file__).with_name("without-digest.npz")
    trainer = gpumlp.Trainer.load(path, device="numpy")
    with np.load(path) as archive:
        for number, (w, b) in enumerate(gpumlp.load(path, "numpy").get_parameters()):
            np.testing.assert_array_equal(w, archive[f"w{number}"])
            np.testing.assert_array_equal(b, archive[f"b{number}"])
    assert trainer.model.extra == {"note": "written by 0.1"} and trainer.schedule == Cosine(steps=50)
    trainer.fit(np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2, epochs=2, progress=False)
    # what the version that wrote it had after these epochs
    assert float(trainer.model.weights[0][0, 0]) == 0.49193471670150757
    assert float(trainer.model.biases[1][1]) == 0.014760765247046947


def test_the_callers_own_mistakes_are_not_the_files(tmp_path):
    trainer = gpumlp.Trainer(gpumlp.MLP([2, 1], device="numpy"), loss="squared_error", optimizer="sgd")
    trainer.save(tmp_path / "t.npz")
    for wrong in ({"callbacks": print}, {"callbacks": [3]}, {"schedule": 3}, {"device": 3}):
        with pytest.raises(TypeError):
            gpumlp.Trainer.load(tmp_path / "t.npz", **{"device": "numpy", **wrong})
    for wrong in ({"device": "nowhere"}, {"schedule": "cosin"}):
        with pytest.raises(ValueError, match="unknown") as caught:
            gpumlp.Trainer.load(tmp_path / "t.npz", **{"device": "numpy", **wrong})
        assert not isinstance(caught.value, gpumlp.ModelFileError)


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path):
    trainer = gpumlp.Trainer(
        gpumlp.MLP([2, 1], device="numpy"),
        loss=gpumlp.Huber(np.float32(0.5)),
        optimizer=gpumlp.Adam(lr=np.float32(0.25)),
        clip_norm=np.float64(2),
        schedule=Cosine(steps=np.int64(50)),
    )
    trainer.optimizer.eps = np.array(1e-3)
    trainer.save(tmp_path / "t.npz")
    again = gpumlp.Trainer.load(tmp_path / "t.npz", device="numpy")
    assert (again.optimizer.lr, again.optimizer.eps, again.clip_norm) == (0.25, 1e-3, 2.0)
    assert again.schedule == Cosine(steps=50) and again.objective.delta == 0.5


def test_a_setting_that_cannot_be_saved_is_named(tmp_path):
    trainer = gpumlp.Trainer(gpumlp.MLP([2, 1], device="numpy"), loss="squared_error", optimizer="sgd")
    trainer.optimizer.t = object()
    with pytest.raises(ValueError, match=r"optimizer\.t=<object"):
        trainer.save(tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": -5}, "'t' is -5"),
        ({"t": True}, "'t' is True"),
        ({"t": 3}, "its state is"),
        ({"t": 2**60}, "'t' is"),
        ({"epoch": -1}, "'epoch' is -1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63}, "'seed' is"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0"),
        ({"delta": 0.0, "loss": "huber"}, "delta=0.0"),
        ({"hyperparameters": {"lr": 10**400}}, "'hyperparameters' is"),
        ({"hyperparameters": {"lr": 0.1, "more": 1}}, "its hyperparameters"),
        ({"loss_scale": [1, 1, 1, 1]}, "'loss_scale' is"),
        ({"precision": "float16", "loss_scale": [1e300, 2, 0, 0]}, "'loss_scale' is"),
        ({"precision": "float16", "loss_scale": [1e-300, 2, 0, 0]}, "'loss_scale' is"),
        ({"schedule": {"name": "cosine", "options": []}}, "cannot be restored"),
        ({"schedule": {"name": "step", "options": {"every": "x"}}}, "cannot be restored"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, change, message):
    path = tmp_path / "t.npz"
    gpumlp.Trainer(gpumlp.MLP([2, 1], device="numpy"), loss="squared_error", optimizer="adam").save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    header["trainer"] |= change
    with open(path, "wb") as file:
        write_npz(file, {**arrays, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    gpumlp.load(path, "numpy")  # the model is as it was
    with pytest.raises(gpumlp.ModelFileError, match=message):
        gpumlp.Trainer.load(path, device="numpy")
