"""Atomic writing, and finding an unwritable path early."""

from __future__ import annotations

import os
import socket
import stat

import pytest

import gpumlp
from gpumlp.files.atomic import check_apart, check_writable, replacing


def test_replacing_writes_or_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["f"]
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["f"]


def test_replacing_survives_a_failing_rename(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_text("old")

    def refuse(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space") as caught, replacing(path) as file:
        file.write(b"new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["f"]


def test_replacing_follows_links(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o640, 0o444])
def test_a_file_keeps_its_mode_and_a_new_one_follows_the_umask(tmp_path, mode):
    path, mask = tmp_path / "f", os.umask(0o027)
    try:
        with replacing(path) as file:
            file.write(b"old")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(mode)
        with replacing(path) as file:
            # not even for a moment is it open to more people
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode
            file.write(b"new")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_text() == "new"


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "link", "socket"])
def test_what_is_no_file_is_not_replaced(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":  # of the test's own: never try this with the machine's
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.stat("/dev/null").st_rdev)
        except OSError as error:
            pytest.skip(str(error))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as place:
            place.bind("x")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    before = os.stat(path)
    with pytest.raises(OSError, match=r"\] that is (a directory; give a file name|not a regular file): 'x'$"):
        gpumlp.MLP([2, 1], device="numpy").save("x")
    after = os.stat(path)
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert set(os.listdir()) <= {"x", "pipe"}


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        (3, TypeError, "expected str, bytes or os.PathLike object, not int"),
        (None, TypeError, "expected str, bytes or os.PathLike object, not NoneType"),
        ("a\0b", ValueError, "embedded null byte"),
        ("", FileNotFoundError, r"\] the file name is empty: ''$"),
    ],
)
def test_names_that_no_file_can_have(path, kind, message):
    model = gpumlp.MLP([2, 1], device="numpy")
    with pytest.raises(kind, match=message) as caught:
        model.save(path)
    assert "JSON" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [b"bytes.npz", "new\nline", "a b", "\udcff", "\u00e9" * 127, "x" * 255, ".hidden", "-o"]
)
def test_names_that_a_file_can_have(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        gpumlp.MLP([2, 1], device="numpy").save(name)
        assert gpumlp.load(name, "numpy").n_params == 3 and os.listdir() == [os.fsdecode(name)]


def test_check_writable(tmp_path):
    good = tmp_path / "m.npz"
    check_writable(good, "the model", (".npz",))
    assert os.listdir(tmp_path) == []
    good.write_text("x")
    check_writable(good, "the model", (".npz",))
    assert good.read_text() == "x" and os.listdir(tmp_path) == ["m.npz"]
    for path, message in (
        (tmp_path / "no" / "m.npz", "there is no directory"),
        (tmp_path, "is a directory"),
        (good / "m.npz", "there is no directory"),
        ("", "file name is empty"),
        ("/proc/m.npz", "cannot write the model to '/proc/m.npz'"),
        ("/dev/null", "not a regular file"),
    ):
        with pytest.raises(ValueError, match=message):
            check_writable(path, "the model")
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg"):
        check_writable(tmp_path / "m.jpeg", "the plot", (".png", ".svg"))


def test_a_missing_directory_is_named(tmp_path):
    path = tmp_path / "no" / "m.npz"
    message = r"there is no directory .*no; make it first"
    with pytest.raises(FileNotFoundError, match=message) as caught, replacing(path):
        pass
    assert caught.value.filename == str(path) and ".tmp" not in str(caught.value)


def test_the_same_file_under_two_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.npz").write_text("data")
    (tmp_path / "link").symlink_to(tmp_path / "t.npz")
    check_apart([("--out", "m.npz"), ("--plot", None)], [("DATA", "t.npz"), ("--test", None)])
    for name in ("t.npz", "./t.npz", str(tmp_path / "t.npz"), "link"):
        with pytest.raises(ValueError, match=r"--out '.*' and DATA 't\.npz' are the same file"):
            check_apart([("--out", name)], [("DATA", "t.npz")])
    with pytest.raises(ValueError, match=r"--plot '\./new' and --out 'new' are the same file"):
        check_apart([("--out", "new"), ("--plot", "./new")], [])
