"""Data files as they lie on the disk: which there are, what they hold, and their bytes, unpacked."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, TextIO

from gpumlp.tables.base import TableError, some

__all__ = ["ENDINGS", "Source", "files_of"]

#: of files that are taken from a folder; packed ones end in .gz, .bz2, .xz or .zst besides
ENDINGS = (".csv", ".tsv", ".tab", ".txt", ".parquet", ".pq", ".feather", ".arrow", ".ipc")
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
_PACKED_STARTS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bz2"), (b"\xfd7zXZ\0", "xz"), (b"(\xb5/\xfd", "zstd"))
_TABLES = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"), (b"FEA1", "feather"))
_PANDAS = "in Python: pandas.{0}({1!r}).to_parquet('data.parquet')"
#: how other files begin, what they are, and what reads them
_OTHERS = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save the sheet as CSV, or convert it ", "read_excel"),
    (b"SQLite format 3", "an SQLite database; export the table as CSV", ""),
    (b"\x89HDF", "an HDF5 file; convert it ", "read_hdf"),
    (b"ORC", "an ORC file; convert it ", "read_orc"),
    (b"$FL2", "an SPSS file; convert it ", "read_spss"),
    (b"<stata_dta>", "a Stata file; convert it ", "read_stata"),
    (b"\x80\x04\x95", "a pickle, which is never loaded; save the table as CSV or Parquet", ""),
    (b"\x80\x05\x95", "a pickle, which is never loaded; save the table as CSV or Parquet", ""),
    (b"%PDF", "a PDF; a table needs CSV or Parquet", ""),
    (b"7z\xbc\xaf", "a 7z archive; unpack it and give the files in it", ""),
    (b"Rar!", "a rar archive; unpack it and give the files in it", ""),
    (b"\x93NUMPY", "one NumPy array; give it the ending .npy", ""),
    (b"Obj\x01", "an Avro file; convert it to CSV or Parquet", ""),
)
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)


def files_of(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the data files that `paths` name, names in folders that are none); all those of a folder, by name."""
    files, others = [], []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        names = sorted(n for n in os.listdir(path) if n[0] not in "._")
        good = [n for n in names if _bare(n).endswith(ENDINGS) and os.path.isfile(os.path.join(path, n))]
        if not good:
            what = f"; there is {some(names, 5)}" if names else ""
            raise TableError(
                f"{path!r} is a directory without data files (.csv, .tsv, .parquet, .feather, .arrow){what}"
            )
        files += [os.path.join(path, name) for name in good]
        others += [os.path.join(path, name) for name in names if name not in good]
    return files, others


def _bare(name: str) -> str:
    """The lower-case name without the ending of a packer."""
    name = name.lower()
    stem, ending = os.path.splitext(name)
    return stem if ending in _PACKED else name


class Source:
    """A data file that can be read as often as needed.

    Parameters
    ----------
    path : str
    encoding : str
        Of text.

    Attributes
    ----------
    form : str
        "text", "parquet", "arrow" or "feather".
    packed : str
        "gzip", "bz2", "xz", "zstd" or "".
    size : int
        Bytes of the file.

    Raises
    ------
    OSError
        The file cannot be opened.
    TableError
        It is something else than a table, or the encoding is not known.
    """

    def __init__(self, path: str, encoding: str = "utf-8") -> None:
        self.path = path
        try:
            name = codecs.lookup(encoding).name
        except LookupError:
            raise TableError(
                f"unknown encoding {encoding!r}; usual ones are utf-8, utf-16, latin-1, cp1252 (Windows)"
            ) from None
        self.encoding = "utf-8-sig" if name == "utf-8" else name
        self._held: bytes | None = None
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                self._held = file.read()  # of a pipe: it can be read once
        self.size = os.path.getsize(path) if self._held is None else len(self._held)
        self.packed = self._packer()
        with self.open() as file:
            start = file.read(1024)
        self.form = next((form for magic, form in _TABLES if start.startswith(magic)), "text")
        if self.form == "text":
            self._refuse_others(start)

    def _packer(self) -> str:
        expected = _PACKED.get(os.path.splitext(self.path)[1].lower(), "")
        with self._raw() as file:
            start = file.read(6)
        found = next((name for magic, name in _PACKED_STARTS if start.startswith(magic)), "")
        if expected and found != expected:
            raise TableError(f"{self.path!r} is not a {expected} file, or is damaged or cut off")
        return found

    def _raw(self) -> BinaryIO:
        return open(self.path, "rb") if self._held is None else io.BytesIO(self._held)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The bytes, unpacked; what is wrong with a packed file is a TableError."""
        raw = self._raw()
        file: Any = raw
        try:
            if self.packed == "zstd":
                file = _zstd(self.path, raw)
            elif self.packed:
                packer: Any = {"gzip": gzip, "bz2": bz2, "xz": lzma}[self.packed]
                file = packer.open(raw)
            yield file
        except _DAMAGED as error:
            raise self._damaged(error) from None
        except OSError as error:
            if not self.packed or error.errno is not None:
                raise
            raise self._damaged(error) from None
        finally:
            file.close()
            raw.close()

    def _damaged(self, error: BaseException) -> TableError:
        return TableError(f"{self.path!r} is not a {self.packed} file, or is damaged or cut off: {error}")

    @contextmanager
    def text(self) -> Iterator[TextIO]:
        """The text, with its line ends."""
        with self.open() as file:
            yield io.TextIOWrapper(file, encoding=self.encoding, newline="")

    def blocks(self, size: int) -> Iterator[bytes]:
        """The text as UTF-8 in pieces of about `size` bytes."""
        if self.encoding == "utf-8-sig":
            with self.open() as file:
                block = file.read(size).removeprefix(codecs.BOM_UTF8)
                while block:
                    yield block
                    block = file.read(size)
        else:
            with self.text() as text:
                while characters := text.read(size // 2):
                    yield characters.encode("utf-8", "surrogatepass")

    def _refuse_others(self, start: bytes) -> None:
        if start.startswith(b"PK"):
            raise TableError(f"{self.path!r} is {self._zipped()}")
        for magic, what, reader in _OTHERS:
            if start.startswith(magic):
                how = _PANDAS.format(reader, os.path.basename(self.path)) if reader else ""
                raise TableError(f"{self.path!r} is {what}{how}")
        text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
        if text[:1] == b"{" and text[1:].lstrip()[:1] in (b'"', b"}"):
            name = os.path.basename(self.path)
            raise TableError(
                f"{self.path!r} holds JSON lines; convert it in Python: "
                f"pandas.read_json({name!r}, lines=True).to_parquet('data.parquet')"
            )
        if text[:1] == b"[" and text[1:].lstrip()[:1] in (b"{", b"[", b"]"):
            how = _PANDAS.format("read_json", os.path.basename(self.path))
            raise TableError(f"{self.path!r} holds JSON; convert it {how}")
        if text[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
            raise TableError(
                f"{self.path!r} is a page of HTML or XML, not a table; was the download refused?"
            )

    def _zipped(self) -> str:
        try:
            with self.open() as file, zipfile.ZipFile(io.BytesIO(file.read())) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile:
            return "a damaged zip archive"
        how = _PANDAS.format("read_excel", os.path.basename(self.path))
        if any(name.startswith("xl/") for name in names):
            return f"an Excel workbook; save the sheet as CSV, or convert it {how}"
        if "content.xml" in names:
            return f"an OpenDocument file; save the sheet as CSV, or convert it {how}"
        if names and all(name.endswith(".npy") for name in names):
            return "an archive of arrays; give it the ending .npz"
        return f"a zip archive of {some(names, 3)}; unpack it and give the files in it"


def _zstd(path: str, raw: BinaryIO) -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path!r} is packed by zstd, which needs pyarrow: pip install 'gpumlp[tables]'"
        ) from None
    return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"))
