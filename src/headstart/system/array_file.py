"""Float32 matrices in files that show any damage: a ``.npy`` file, followed by a note with a checksum.

The checksum is a CRC-32 of the header and all rows; the note has one of its own. It is apart from `cache`,
which decides what is stored where.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DamagedError", "Note", "RowSums", "ending", "header", "read_matrix", "read_note", "rows_of"]

_MAGIC = b"headrows"
_FOOTER = struct.Struct("<8sII")  # magic, bytes of the note, checksum of the note
_RECORD = struct.Struct("<QI")  # rows so far, checksum up to there
_LIMIT_NOTE_BYTES = 2**24
_READ_BYTES = 2**20  # fits a processor's cache, where the checksum costs a tenth of the reading

Shape = tuple[int, int]


class DamagedError(Exception):
    """A file of the cache is not as it was written: it counts as absent, so users never see this."""


@dataclass(frozen=True)
class Note:
    """What stands behind the rows: what they depend on, their shape, and the checksum of header and rows."""

    parts: Mapping[str, Any]
    shape: Shape
    checksum: int


def header(shape: Shape) -> bytes:
    """The first bytes of a ``.npy`` file of float32 rows."""
    file = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def ending(note: Note) -> bytes:
    """The bytes behind the last row."""
    text = json.dumps({"parts": dict(note.parts), "shape": note.shape, "crc32": note.checksum}).encode()
    return text + _FOOTER.pack(_MAGIC, len(text), zlib.crc32(text))


def read_note(file: IO[bytes]) -> Note:
    """The note of a file, whose rows are not read; DamagedError if it is not whole."""
    size = os.fstat(file.fileno()).st_size
    if size < _FOOTER.size:
        raise DamagedError("it is too short")
    file.seek(size - _FOOTER.size)
    magic, length, checksum = _FOOTER.unpack(file.read(_FOOTER.size))
    if magic != _MAGIC or length > min(_LIMIT_NOTE_BYTES, size - _FOOTER.size):
        raise DamagedError("it has no checksum")
    file.seek(size - _FOOTER.size - length)
    text = file.read(length)
    if zlib.crc32(text) != checksum:
        raise DamagedError("the checksum of its description differs")
    try:
        found = json.loads(text)
        n_rows, n_columns = map(int, found["shape"])
        note = Note(dict(found["parts"]), (n_rows, n_columns), int(found["crc32"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError("its description is malformed") from error
    expected = len(header(note.shape)) + 4 * n_rows * n_columns + length + _FOOTER.size
    if min(note.shape) < 0 or size != expected:
        raise DamagedError(f"it has {size} bytes, expected {expected}")
    return note


def read_matrix(file: IO[bytes], note: Note) -> NDArray[np.float32]:
    """The rows, memory-mapped and read-only, after all of them were compared with the checksum."""
    first = header(note.shape)
    file.seek(0)
    if file.read(len(first)) != first:
        raise DamagedError("its header differs")
    checksum = zlib.crc32(first)
    for piece in _pieces(file, 4 * note.shape[0] * note.shape[1]):
        checksum = zlib.crc32(piece, checksum)
    if checksum != note.checksum:
        raise DamagedError("the checksum of its rows differs")
    return rows_of(file, note.shape)


def rows_of(file: IO[bytes], shape: Shape) -> NDArray[np.float32]:
    """The rows of an open file, memory-mapped and read-only, unchecked."""
    if 0 in shape:  # nothing to map
        empty = np.empty(shape, np.float32)
        empty.flags.writeable = False
        return empty
    return np.memmap(file, np.float32, "r", offset=len(header(shape)), shape=shape)


def _pieces(file: IO[bytes], n_bytes: int) -> Iterator[memoryview]:
    """The next bytes of a file piece by piece, each valid until the next; fewer where the file ends."""
    buffer = memoryview(bytearray(min(_READ_BYTES, n_bytes)))
    while n_bytes:
        n_read = file.readinto(buffer[: min(len(buffer), n_bytes)])  # type: ignore[attr-defined]
        if not n_read:
            return
        yield buffer[:n_read]
        n_bytes -= n_read


class RowSums:
    """The running checksum of a file that is being written, and a record of it after every write.

    The records are in a file of their own (``path``, or nowhere), so that rows of an interrupted run are
    used again only as far as they are as they were written.
    """

    def __init__(self, shape: Shape, path: Path | None) -> None:
        self._shape, self._path = shape, path
        self._row_bytes = 4 * shape[1]
        self.checksum = zlib.crc32(header(shape))
        self._records: IO[bytes] | None = None

    def resume(self, file: IO[bytes]) -> tuple[int, bool]:
        """Number of rows that are as they were written, and whether there are others."""
        n_done, n_records, damaged = 0, 0, False
        file.seek(len(header(self._shape)))
        for n_rows, checksum in self._recorded():
            new = self.checksum
            for piece in _pieces(file, max(0, n_rows - n_done) * self._row_bytes):
                new = zlib.crc32(piece, new)
            damaged = new != checksum or not n_done < n_rows <= self._shape[0]
            if damaged:
                break
            n_done, self.checksum, n_records = n_rows, checksum, n_records + 1
        self._open(n_records * _RECORD.size)
        return n_done, damaged

    def add(self, rows: memoryview, n_done: int) -> None:
        """Rows were written, ``n_done`` in all; OSError if that cannot be recorded."""
        self.checksum = zlib.crc32(rows, self.checksum)
        if self._records is not None:
            self._records.write(_RECORD.pack(n_done, self.checksum))
            self._records.flush()

    def _recorded(self) -> Iterator[tuple[int, int]]:
        if self._path is None or not self._path.exists():
            return
        data = self._path.read_bytes()
        yield from _RECORD.iter_unpack(data[: len(data) // _RECORD.size * _RECORD.size])

    def _open(self, length: int) -> None:
        """Open the records, cut to those that hold."""
        if self._path is not None:
            self._records = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            self._records.truncate(length)
            self._records.seek(length)

    def remove(self) -> None:
        """Close and delete the records."""
        self.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep the records for a later run."""
        if self._records is not None:
            self._records.close()
