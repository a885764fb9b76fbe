"""Tables of Parquet and Arrow files, read a few rows at a time: columns of text, and images in cells."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from headstart.data.contents.addresses import explained, is_remote, open_file
from headstart.errors import BrokenDataError, HeadstartError
from headstart.system.optional import require

__all__ = ["TableFile", "holds_images", "open_table", "readable"]

_RUN_BYTES = 8 * 2**20  # of images that are read at a time
_MOST_ROWS = 4096
_BUFFER_BYTES = 4 * 2**20


class TableFile(Protocol):
    """An open table; its rows lie in parts that are read in order, such as row groups."""

    schema: Any
    n_rows: int
    first_rows: list[int]
    """The first row of each part."""

    def batches(self, columns: Sequence[str], part: int | None = None) -> Iterator[Any]:
        """Record batches of some columns, of one part or of all."""
        ...


def open_table(address: str) -> TableFile:
    """Open a Parquet file, or an Arrow file or stream, by its first bytes; BrokenDataError if it is none."""
    require("pyarrow.parquet", extra="tables", for_=f"table {posixpath.basename(address)!r}")
    with readable(address):
        with open_file(address) as file, explained(address):
            head = file.read(8)
        if head.startswith(b"ARROW1"):
            return _ArrowTable(address, is_stream=False)
        if head.startswith(b"\xff\xff\xff\xff"):
            return _ArrowTable(address, is_stream=True)
        return _ParquetTable(address)


@contextmanager
def readable(address: str) -> Iterator[None]:
    """Turn errors of pyarrow into BrokenDataError in one line."""
    try:
        yield
    except HeadstartError:
        raise
    except (OSError, ValueError, NotImplementedError) as error:
        if is_remote(address) and not _is_of_arrow(error):
            with explained(address):
                raise
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        kind = "Arrow" if address.lower().endswith(".arrow") else "Parquet"
        raise BrokenDataError(
            f"table {address!r} cannot be read ({reason}), expected a whole {kind} file; write it again"
        ) from error


def _is_of_arrow(error: Exception) -> bool:
    return type(error).__module__.startswith("pyarrow") or type(error) in (OSError, ValueError)


def holds_images(kind: Any) -> bool:
    """Whether the cells of a column are bytes, or Hugging Face's ``{bytes, path}``."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and holds_images(field.type) for field in kind)
    names = ("is_binary", "is_large_binary", "is_binary_view")
    return any(getattr(types, name)(kind) for name in names if hasattr(types, name))


class _ParquetTable:
    def __init__(self, address: str) -> None:
        from pyarrow import parquet

        self._address = address
        # without pre-buffering: it would hold all images of a row group
        options = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES}
        source = open_file(address) if is_remote(address) else address
        with explained(address) if is_remote(address) else readable(address):
            self._file = parquet.ParquetFile(source, **options)
        self.schema, footer = self._file.schema_arrow, self._file.metadata
        self.n_rows, self.first_rows = int(footer.num_rows), [0]
        for number in range(footer.num_row_groups):
            self.first_rows.append(self.first_rows[-1] + footer.row_group(number).num_rows)
        self.first_rows.pop()

    def batches(self, columns: Sequence[str], part: int | None = None) -> Iterator[Any]:
        parts = range(len(self.first_rows)) if part is None else [part]
        for one in parts:
            rows = self._rows_at_a_time(columns, one)
            yield from self._file.iter_batches(rows, row_groups=[one], columns=list(columns))

    def _rows_at_a_time(self, columns: Sequence[str], part: int) -> int:
        group = self._file.metadata.row_group(part)
        chunks = (group.column(number) for number in range(group.num_columns))
        n_bytes: int = sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema.partition(".")[0] in columns
        )
        n_rows: int = group.num_rows
        return max(1, min(_MOST_ROWS, _RUN_BYTES * n_rows // max(n_bytes, 1)))


class _ArrowTable:
    """As `datasets` writes it with save_to_disk. A remote one has no index and is read from its beginning."""

    def __init__(self, address: str, *, is_stream: bool) -> None:
        self._address, self._is_stream = address, is_stream
        self.n_rows = 0
        self.first_rows: list[int] = []
        with self._opened(mapped=True) as reader:
            self.schema = reader.schema
            for batch in self._all(reader):
                if batch.num_rows:
                    self.first_rows.append(self.n_rows)
                    self.n_rows += batch.num_rows

    def batches(self, columns: Sequence[str], part: int | None = None) -> Iterator[Any]:
        with self._opened(mapped=part is None) as reader:
            whole = (batch for batch in self._all(reader) if batch.num_rows)
            for number, batch in enumerate(whole):
                if part is None or number == part:
                    some = batch.select(list(columns))
                    some.validate(full=True)  # offsets of a damaged file would end the process
                    yield some
                if number == part:
                    return

    def _all(self, reader: Any) -> Iterator[Any]:
        if self._is_stream:
            yield from reader
        else:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))

    @contextmanager
    def _opened(self, *, mapped: bool) -> Iterator[Any]:
        """A mapped file costs no memory; images are not mapped, since a file that is cut would end the process."""
        import pyarrow
        from pyarrow import ipc

        if is_remote(self._address):
            source: Any = open_file(self._address)
        else:
            source = pyarrow.memory_map(self._address) if mapped else pyarrow.OSFile(self._address)
        with source:
            yield ipc.open_stream(source) if self._is_stream else ipc.open_file(source)
