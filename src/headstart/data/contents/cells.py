"""Images in the cells of Parquet and Arrow tables, read a few rows at a time."""

from __future__ import annotations

import os
import posixpath
from array import array
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.contents.addresses import is_remote, read_part, size_of
from headstart.data.contents.blocks import blocks
from headstart.data.contents.protocol import Unread
from headstart.data.contents.tables import TableFile, open_table, readable
from headstart.data.files import LIMIT_BYTES
from headstart.errors import BrokenDataError, MissingDataError

__all__ = ["TableCells", "open_column"]

_MOST_OPEN = 8  # tables


class TableCells:
    """Cells of an image column; append-only, so that it can be read while rows are still being added.

    ``shown`` are the names of the tables in messages. A cell without bytes may name a file, relative to its table.
    """

    def __init__(self, tables: Sequence[str], shown: Sequence[str], columns: Sequence[str]) -> None:
        self._tables, self._shown, self._columns = tuple(tables), tuple(shown), tuple(columns)
        self._table_of, self._rows = array("i"), array("q")

    @property
    def paths(self) -> None:
        """None: cells are no files of their own."""
        return

    def add(self, table: int, row: int) -> None:
        """Append a row of a table, counted from 0."""
        self._table_of.append(table)
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, place: int) -> str:
        """``part-1.parquet row 17``; rows count from 1."""
        return f"{self._shown[self._table_of[place]]} row {self._rows[place] + 1}"

    def read(self, place: int) -> bytes:
        """The bytes of a cell, or of the file that it names; Unread if there are none."""
        number = self._table_of[place]
        table, column = self._tables[number], self._columns[number]
        cell = _cell(table, column, self._rows[place])
        data = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if data:
            return bytes(data)
        path = cell.get("path") if isinstance(cell, Mapping) else None
        if not path:
            raise Unread("it has no image", "fill it in, or drop the row")
        return _file_of(table, str(path))

    def head(self, place: int, n_bytes: int) -> bytes:
        """The first bytes of a cell; none if it cannot be read."""
        try:
            return self.read(place)[:n_bytes]
        except Unread:
            return b""

    def subset(self, indices: NDArray[np.intp]) -> TableCells:
        """Select cells in this order, with the tables that hold them."""
        used, table_of = np.unique(np.asarray(self._table_of)[indices], return_inverse=True)
        some = TableCells(
            *([column[one] for one in used] for column in (self._tables, self._shown, self._columns))
        )
        some._table_of = array("i", table_of.astype(np.int32).tobytes())
        some._rows = array("q", np.asarray(self._rows)[indices].tobytes())
        return some


def _cell(table: str, column: str, row: int) -> Any:
    """One cell; a table that was changed while it is open is opened again."""
    try:
        try:
            return _opened(table, column).cell(row)
        except BrokenDataError:
            return open_column(table, column).cell(row)
    except (BrokenDataError, MissingDataError) as error:
        raise Unread(str(error).partition(", expected ")[0], "load the dataset again") from error


def _file_of(table: str, path: str) -> bytes:
    """The file that a cell names."""
    if not is_remote(path):
        path = (
            posixpath.join(posixpath.dirname(table), path)
            if is_remote(table)
            else os.path.join(os.path.dirname(table), path)
        )
    try:
        n_bytes = size_of(path)
    except MissingDataError as error:
        raise Unread(f"it names {path!r}, which does not exist", "correct the path") from error
    if n_bytes > LIMIT_BYTES:
        raise Unread(f"it has {n_bytes:,} bytes, more than {LIMIT_BYTES:,}", "leave it out")
    return read_part(path, 0, n_bytes)


class _Column:
    """An open column of images: read in order it is one pass. Its runs of rows are kept among the blocks."""

    def __init__(self, address: str, column: str, table: TableFile | None) -> None:
        self._address, self._column = address, column
        self._table = open_table(address) if table is None else table
        self._key = (address, column, object())  # not that of an older file
        self._starts: list[int] = []
        self._lock = Lock()
        self._part, self._next = -1, 0
        self._batches: Iterator[Any] = iter(())

    def cell(self, row: int) -> Any:
        """One cell as a Python object; BrokenDataError if the table has become shorter or cannot be read."""
        if not 0 <= row < self._table.n_rows:
            raise BrokenDataError(
                f"table {self._address!r} lacks row {row + 1}, expected it; load the dataset again"
            )
        with self._lock:
            first, cells = self._kept(row) or self._read(row)
        return cells[row - first].as_py()

    def _kept(self, row: int) -> tuple[int, Any] | None:
        place = bisect_right(self._starts, row) - 1
        found = blocks().find((*self._key, self._starts[place])) if place >= 0 else None
        return found if found is not None and row < found[0] + len(found[1]) else None

    def _read(self, row: int) -> tuple[int, Any]:
        """The rows that are read together with this one: the number of the first, and their cells."""
        part = bisect_right(self._table.first_rows, row) - 1
        with readable(self._address):
            if part != self._part or row < self._next:
                self._part, self._next = part, self._table.first_rows[part]
                self._batches = self._table.batches([self._column], part)
            for batch in self._batches:
                first, self._next = self._next, self._next + batch.num_rows
                if row < self._next:
                    if self._next == self._end_of(part):
                        self._close()
                    return self._keep(first, batch.column(0))
        self._close()
        raise BrokenDataError(
            f"table {self._address!r} lacks row {row + 1}, expected it; load the dataset again"
        )

    def _end_of(self, part: int) -> int:
        firsts = self._table.first_rows
        return firsts[part + 1] if part + 1 < len(firsts) else self._table.n_rows

    def _close(self) -> None:
        """Let go of a part, which holds whole pages: writers may put 1,000 images into one."""
        self._part, self._batches = -1, iter(())

    def _keep(self, first: int, cells: Any) -> tuple[int, Any]:
        place = bisect_right(self._starts, first)
        if not place or self._starts[place - 1] != first:
            insort(self._starts, first)
        blocks().put((*self._key, first), (first, cells), cells.nbytes)
        return first, cells


_OPEN: OrderedDict[tuple[str, str], _Column] = OrderedDict()
_LOCK, _OPENING = Lock(), Lock()


def _after_fork() -> None:
    global _LOCK, _OPENING
    _LOCK, _OPENING = Lock(), Lock()
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _opened(address: str, column: str) -> _Column:
    known = _found(address, column)
    if known is not None:
        return known
    with _OPENING:  # threads that want the same table wait for the first of them
        return _found(address, column) or open_column(address, column)


def _found(address: str, column: str) -> _Column | None:
    with _LOCK:
        known = _OPEN.get((address, column))
        if known is not None:
            _OPEN.move_to_end((address, column))
        return known


def open_column(address: str, column: str, table: TableFile | None = None) -> _Column:
    """Open a column for `TableCells`, anew if it was open: the file may have changed since."""
    made = _Column(address, column, table)
    with _LOCK:
        _OPEN[address, column] = made
        _OPEN.move_to_end((address, column))
        while len(_OPEN) > _MOST_OPEN:
            _OPEN.popitem(last=False)
    return made
