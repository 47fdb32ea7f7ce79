"""The cache of compiled code: private, whole, and free of what killed compilations leave behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpumlp.backends.native import build, cache
from gpumlp.backends.native.backend import NativeBackend
from gpumlp.errors import DeviceError

pytestmark = [
    pytest.mark.usefixtures("fresh"),
    pytest.mark.skipif(
        NativeBackend.why_not() is not None, reason=f"no native executor: {NativeBackend.why_not()}"
    ),
]
SOURCE = 'extern "C" int answer() { return %d; }\n'


def answer(number: int) -> int:
    return build.load(SOURCE % number).answer()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- which directory -----------------------------------------------------------------------------------
def test_it_is_private_and_used(fresh: Path, new_process: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (answer(1), answer(2)) == (1, 2)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    assert len(names(fresh)) == 2 and all(name.endswith(".so") for name in names(fresh))
    new_process()
    monkeypatch.setattr(cache, "store", lambda *_: pytest.fail("compiled again"))
    assert answer(1) == 1


@pytest.mark.parametrize("problem", ["others can write", "a file", "a link"])
def test_an_unsafe_one_is_not_used(fresh: Path, problem: str) -> None:
    if problem == "others can write":
        fresh.mkdir()
        fresh.chmod(0o777)
    elif problem == "a file":
        fresh.write_text("")
    else:
        (fresh.parent / "elsewhere").mkdir()
        fresh.symlink_to(fresh.parent / "elsewhere")
    used = cache.directory()
    assert used != fresh and used.resolve() != fresh.resolve()
    assert stat.S_IMODE(used.stat().st_mode) == 0o700


@pytest.mark.parametrize("change", ["others can write", "another directory"])
def test_it_is_checked_whenever_something_is_loaded(fresh: Path, new_process: Callable, change: str) -> None:
    assert answer(1) == 1
    if change == "others can write":
        fresh.chmod(0o777)
    else:
        fresh.rename(fresh.with_name("mine"))
        fresh.symlink_to(fresh.with_name("mine"))
    before = names(fresh)
    new_process()
    assert (answer(1), answer(2)) == (1, 2)
    assert names(fresh) == before


def test_it_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GPUMLP_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.directory() == tmp_path / "xdg" / "gpumlp"
    monkeypatch.setenv("GPUMLP_CACHE_DIR", "here")
    monkeypatch.chdir(tmp_path)
    assert cache.directory() == tmp_path / "here"


def test_without_a_home_it_is_a_temporary_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GPUMLP_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user that has no entry either
    monkeypatch.chdir(tmp_path)
    assert cache.directory().is_absolute() and answer(1) == 1
    assert not (tmp_path / "~").exists()


# ---- damage --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("damage", ["empty", "short", "one byte less", "one bit"])
def test_a_damaged_library_is_made_again(fresh: Path, new_process: Callable, damage: str) -> None:
    assert answer(1) == 1
    (path,) = fresh.iterdir()
    good = path.read_bytes()
    changed = bytearray(good)
    changed[len(good) // 2] ^= 4
    bad = {"empty": b"", "short": good[:4096], "one byte less": good[:-1], "one bit": bytes(changed)}[damage]
    path.unlink()  # what this process has mapped must not change
    path.write_bytes(bad)
    new_process()
    assert answer(1) == 1
    assert path.read_bytes() == good


@pytest.mark.parametrize("other", ["pipe", "link", "socket"])
def test_what_is_no_file_in_its_place_is_replaced(
    fresh: Path, new_process: Callable, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    assert answer(1) == 1
    (library,) = fresh.iterdir()
    library.unlink()
    if other == "pipe":
        os.mkfifo(library)
    elif other == "link":
        library.symlink_to("/dev/zero")
    else:
        monkeypatch.chdir(fresh)
        with socket.socket(socket.AF_UNIX) as place:
            place.bind(library.name)  # a short name: the system takes no others
    new_process()
    assert answer(1) == 1
    assert stat.S_ISREG(library.lstat().st_mode)


def test_a_library_that_does_not_load_is_made_again(
    fresh: Path, new_process: Callable, compiler: Callable, tmp_path: Path
) -> None:
    """As after a change of the C library: whole, and yet of no use."""
    first = f"[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; "
    writes = 'while [ "$1" != -o ]; do shift; done; echo no library > "$2"; exit; }'
    compiler(f'{first}{writes}\nexec g++ "$@"')
    assert answer(1) == 1  # the second attempt, in the temporary directory
    new_process()
    assert answer(1) == 1  # in the cache
    assert len(names(fresh)) == 1


def test_a_full_cache_does_not_matter(fresh: Path, new_process: Callable, compiler: Callable) -> None:
    compiler(f'case "$*" in *{fresh}/*) echo No space left on device >&2; exit 1;; esac\nexec g++ "$@"')
    assert answer(1) == 1
    new_process()
    assert answer(1) == 1
    assert names(fresh) == []


def test_nowhere_to_write(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.write_text("")
    monkeypatch.setattr(cache.tempfile, "mkdtemp", _no_space)
    with pytest.raises(DeviceError, match=r"No space.*GPUMLP_CACHE_DIR"):
        answer(1)


def _no_space(*_: object, **__: object) -> str:
    raise OSError(28, "No space left on device")


# ---- what killed processes leave -----------------------------------------------------------------------
def test_what_killed_compilations_leave_is_removed(fresh: Path, compiler: Callable, tmp_path: Path) -> None:
    compiler(f"echo $$ > {tmp_path}/pid; exec sleep 600")
    code = f"from gpumlp.backends.native import build; build.load({SOURCE % 1!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    process.kill()
    process.wait()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert len(names(fresh)) == 1
    compiler('exec g++ "$@"')
    build.find_compiler.cache_clear()
    assert answer(2) == 2
    assert [name.endswith(".so") for name in names(fresh)] == [True]


def test_what_others_are_making_stays(fresh: Path) -> None:
    cache.directory()
    with cache.workshop(fresh) as folder:
        assert answer(1) == 1
        assert folder.is_dir()
    assert [name.endswith(".so") for name in names(fresh)] == [True]
