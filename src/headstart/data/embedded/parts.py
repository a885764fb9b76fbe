"""Parquet files of features: one shard written at once, columns and vectors read row group by row group."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.embedded.record import FeatureRecord, record_text
from headstart.errors import BrokenDataError, DataError
from headstart.records import Array
from headstart.system.files import atomic_file
from headstart.system.optional import require

__all__ = ["DIGEST_BYTES", "Part", "Rows", "is_part", "part_names", "write_part"]

DIGEST_BYTES = 32
_GROUP_BYTES = 2**24  # of vectors in a row group: what a reader must hold at once
_LEAST_ROWS = 256
_BATCH = 8_192  # rows that are read at a time from larger row groups, which other programs write
_COLUMNS = ("path", "label", "digest", "vector")


@dataclass(frozen=True)
class Rows:
    """What a file of features holds beside the vectors: one entry for each image, ``digests`` uint8 (n, 32)."""

    names: NDArray[np.object_]
    labels: NDArray[np.str_]
    splits: NDArray[np.str_] | None
    groups: NDArray[np.str_] | None
    digests: NDArray[np.uint8]


def part_names(n_shards: int) -> list[str]:
    """Names of the files of a folder, in order."""
    return [f"part-{number:05}.parquet" for number in range(n_shards)]


def write_part(path: Path, record: FeatureRecord, rows: Rows, vectors: Array) -> None:
    """Write one shard completely or not at all; UnwritableError where that fails."""
    pa, parquet = _arrow(), require("pyarrow.parquet", extra="tables", for_="features as a table")
    kind = pa.float16() if record.dtype == "float16" else pa.float32()
    columns = {
        "path": pa.array([_unicode(name) for name in rows.names], pa.string()),
        "label": pa.array(rows.labels.tolist(), pa.string()),
        **{
            name: pa.array(column.tolist(), pa.string())
            for name, column in (("split", rows.splits), ("group", rows.groups))
            if column is not None
        },
        "digest": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(DIGEST_BYTES), len(vectors), [None, pa.py_buffer(rows.digests.tobytes())]
        ),
    }
    fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
    vector = pa.list_(pa.field("item", kind, nullable=False), record.n_features)
    schema = pa.schema([*fields, pa.field("vector", vector, nullable=False)], metadata=record.metadata())
    n_rows = max(_LEAST_ROWS, _GROUP_BYTES // (4 * record.n_features))
    dtype = np.dtype(record.dtype)
    with (
        atomic_file(path) as temporary,
        parquet.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            use_dictionary=["label", *(name for name in ("split", "group") if name in columns)],
            write_page_checksum=True,
        ) as file,
    ):
        for first in range(0, len(vectors), n_rows):
            some = np.ascontiguousarray(vectors[first : first + n_rows], dtype)
            values = pa.FixedSizeListArray.from_arrays(pa.array(some.reshape(-1), kind), type=vector)
            others = [column.slice(first, len(some)) for column in columns.values()]
            file.write_table(pa.table([*others, values], schema=schema), row_group_size=n_rows)


def _unicode(name: str) -> str:
    """A path as text that UTF-8 can hold: bytes that are no characters are escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def is_part(path: Path) -> bool:
    """Whether a file is one of features, with its record or without; False if it is no Parquet file."""
    parquet = require("pyarrow.parquet", extra="tables", for_=f"table {path.name!r}")
    try:
        about = parquet.read_metadata(path)
    except (OSError, ValueError):
        return False
    return _is_of_features(about.schema.to_arrow_schema().names, _entries(about))


def _entries(about: Any) -> Mapping[bytes, bytes]:
    """The entries of a file's metadata; those of its Arrow schema lack what polars writes."""
    return about.metadata or {}


def _is_of_features(names: Sequence[str], metadata: Mapping[bytes, bytes]) -> bool:
    return record_text(metadata) is not None or {"digest", "vector"} <= set(names)


class Part:
    """One Parquet file of features; its vectors are read when they are used.

    ``state`` changes with the file. DataError or BrokenDataError if it is none, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, (-1, -1)
        with self._open() as file:
            self.state = _state(path)
            names, metadata = file.schema_arrow.names, _entries(file.metadata)
            if not _is_of_features(names, metadata):
                raise DataError(
                    f"table {str(path)!r} holds no features, expected a file that headstart embed wrote; move it to "
                    "another folder"
                )
            self.record = FeatureRecord.read(metadata, str(path))
            self._group_rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        lacking = [name for name in _COLUMNS if names.count(name) != 1]
        if lacking:
            raise DataError(
                f"features {str(path)!r} have no column {lacking[0]!r}, or two, expected {', '.join(_COLUMNS)} once "
                "each; write the table again with them"
            )
        self._optional = [name for name in ("split", "group") if name in names]

    def __len__(self) -> int:
        return sum(self._group_rows)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """The open Parquet file; what it raises becomes one sentence."""
        parquet = require("pyarrow.parquet", extra="tables", for_=f"features {self.path.name!r}")
        try:
            if self.state not in ((-1, -1), _state(self.path)):
                raise BrokenDataError(
                    f"features {str(self.path)!r} have changed since they were read, expected them as they were; "
                    "load them again"
                )
            with parquet.ParquetFile(self.path, page_checksum_verification=True) as file:
                yield file
        except (OSError, ValueError, NotImplementedError) as error:
            if isinstance(error, DataError):
                raise
            reason = str(error).splitlines()[0]
            raise BrokenDataError(
                f"features {str(self.path)!r} cannot be read ({reason}), expected a whole Parquet file; copy it "
                "again, or delete it and run headstart embed again"
            ) from error

    def rows(self) -> Rows:
        """Everything but the vectors."""
        with self._open() as file:
            table = file.read(["path", "label", "digest", *self._optional])
            columns = {
                name: self._text(table.column(name), name) for name in ("path", "label", *self._optional)
            }
            return Rows(
                np.array(columns["path"], np.object_),
                np.asarray(columns["label"], np.str_),
                np.asarray(columns["split"], np.str_) if "split" in columns else None,
                np.asarray(columns["group"], np.str_) if "group" in columns else None,
                self._digests(table.column("digest")),
            )

    def _text(self, column: Any, name: str) -> list[str]:
        """Cells as text; whole numbers that pandas made floats are whole numbers again."""
        pa = _arrow()
        types = pa.types
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        cells = column.to_pylist()
        if types.is_floating(column.type) and all(cell is not None and cell.is_integer() for cell in cells):
            cells = [int(cell) for cell in cells]
        for place, cell in enumerate(cells):
            if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
                raise DataError(
                    f"row {place + 1} of {str(self.path)!r} has no {name}, expected one in every row; fill it in, or "
                    "drop the row"
                )
        return [cell if isinstance(cell, str) else str(cell) for cell in cells]

    def _digests(self, column: Any) -> NDArray[np.uint8]:
        cells = column.to_pylist()
        wrong = next(
            (i for i, one in enumerate(cells) if not isinstance(one, bytes) or len(one) != DIGEST_BYTES), -1
        )
        if wrong >= 0:
            raise DataError(
                f"row {wrong + 1} of {str(self.path)!r} has no digest of {DIGEST_BYTES} bytes, expected the SHA-256 "
                "of an image, as headstart embed writes it; keep this column as it is"
            )
        return np.frombuffer(b"".join(cells), np.uint8).reshape(-1, DIGEST_BYTES)

    def vectors(self, wanted: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], Array]]:
        """Vectors of some rows, ascending, piece by piece: places in ``wanted``, and float32 (n, n_features)."""
        ends = np.cumsum([0, *self._group_rows]).tolist()
        with self._open() as file:
            for group, begin in enumerate(ends[:-1]):
                first = begin
                here = np.searchsorted(wanted, [begin, ends[group + 1]])
                if here[0] == here[1]:
                    continue
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=["vector"]):
                    low, high = np.searchsorted(wanted, [first, first + len(batch)])
                    if low < high:
                        values = self._matrix(batch.column(0), first)
                        yield np.arange(low, high), values[wanted[low:high] - first]
                    first += len(batch)

    def _matrix(self, column: Any, first: int) -> Array:
        """A column of lists as a matrix; DataError unless all have the recorded length."""
        pa, width = _arrow(), self.record.n_features
        types, kind = pa.types, column.type
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if column.null_count:
            self._refuse_vectors("missing in some rows", first)
        if not is_list or not types.is_floating(kind.value_type):
            self._refuse_vectors(f"of {kind}", first)
        values = column.flatten()
        lengths = np.diff(column.offsets.to_numpy()) if hasattr(column, "offsets") else [kind.list_size]
        if values.null_count or (np.asarray(lengths) != width).any():
            self._refuse_vectors("of several lengths, or with missing values", first)
        matrix: Array = (
            values.to_numpy(zero_copy_only=False).reshape(-1, width).astype(np.float32, copy=False)
        )
        return matrix

    def _refuse_vectors(self, what: str, first: int) -> None:
        raise DataError(
            f"vectors of {str(self.path)!r} after row {first} are {what}, expected {self.record.n_features} numbers "
            "in each row; keep this column as headstart embed writes it"
        )


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _arrow() -> Any:
    return require("pyarrow", extra="tables", for_="features as a table")
