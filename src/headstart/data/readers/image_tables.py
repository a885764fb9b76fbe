"""Tables with images in their cells: Parquet files, and the folders that Hugging Face's `datasets` writes."""

from __future__ import annotations

import json
import os
import unicodedata
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from headstart.data.contents.addresses import is_remote
from headstart.data.contents.cells import TableCells, open_column
from headstart.data.contents.tables import TableFile, holds_images, open_table, readable
from headstart.data.names import shown
from headstart.data.readers.columns import column_roles, picked, plain_names
from headstart.data.readers.files import Labels, Listing, Skipped
from headstart.data.readers.shards import Shard
from headstart.errors import DataError

__all__ = ["class_names", "image_column", "is_plain", "table_listing", "text_of"]

_IMAGES = ("image", "img", "images", "photo", "jpg", "png", "picture")
_INFO = "dataset_info.json"
_NO_LABEL = -1  # of Hugging Face's ClassLabel
_MOST_KNOWN = 65_536  # different cells of a column


def image_column(address: str, schema: Any) -> str | None:
    """The column of images of a table; None if there is none, or if other bytes stand next to paths of files.

    DataError if there are several and none is called image.
    """
    found: list[str] = [field.name for field in schema if holds_images(field.type)]
    named = [name for name in found if name.strip().lower() in _IMAGES]
    texts = [field.name.strip().lower() for field in schema if is_plain(field.type)]
    if len(named) == 1:
        return named[0]
    if not found or (not named and "path" in column_roles(f"table {address!r}", texts)):
        return None
    if len(found) > 1:
        raise DataError(
            f"table {address!r} has bytes in the columns {shown(found)}, expected one column of images; "
            "rename it to image"
        )
    return found[0]


def table_listing(name: str, shards: Sequence[Shard], label: str | None = None) -> Listing:
    """The rows of the tables of a dataset, whose labels are read now; with ``label``, that is the label of all.

    Classes that Hugging Face stores as numbers get their names; rows without a label are skipped. DataError if there
    is no column of labels.
    """
    reader = _Reader(name, shards, label)
    n_rows = len(reader.contents)
    return Listing(name, reader.contents, reader.rows(), lambda _: n_rows, reader.skipped, reader.remarks)


class _Reader:
    """The text columns of all tables, in memory; equal cells of a column are one object."""

    def __init__(self, name: str, shards: Sequence[Shard], label: str | None) -> None:
        self._name, self._shards, self._all = name, shards, label
        self.remarks: list[str] = []
        self.skipped: list[Skipped] = []
        self._columns: dict[str, _Texts] = {}
        self._label: str | None = None
        table_of, rows = array("i"), array("q")
        images = []
        for number, shard in enumerate(shards):
            with readable(shard.address):
                table = open_table(shard.address)
                images.append(self._read(shard, table))
            table_of.extend([number] * table.n_rows)
            rows.extend(range(table.n_rows))
            open_column(shard.address, images[-1], table)
        self.contents = TableCells([one.address for one in shards], [one.shown for one in shards], images)
        self._keep_labelled(table_of, rows)

    def _read(self, shard: Shard, table: TableFile) -> str:
        """Add the text columns of a table; the name of its column of images."""
        images = image_column(shard.address, table.schema)
        if images is None:
            raise DataError(
                f"table {shard.address!r} has the columns {shown(table.schema.names)}, expected one with the bytes "
                "of images; read tables that name files one at a time"
            )
        if self._all is not None:
            return images
        names = [field.name for field in table.schema if field.name != images and is_plain(field.type)]
        plain = plain_names(shard.address, names)
        classes = class_names(table.schema.metadata, shard.address)
        if not self._columns:
            self._columns = {column: _Texts() for column in plain}
            self._label = _label_column(
                self._name, plain, [plain[names.index(one)] for one in classes if one in names]
            )
        elif {*plain} != {*self._columns}:
            raise DataError(
                f"table {shard.address!r} has the columns {shown(plain)}, and {self._shards[0].address!r} has "
                f"{shown(self._columns)}, expected the same in all; read those that differ one at a time"
            )
        for batch in table.batches(names) if names else ():
            for column, name in zip(plain, names, strict=True):
                self._columns[column].extend(batch.column(name).to_pylist(), classes.get(name))
        return images

    def _keep_labelled(self, table_of: array[int], rows: array[int]) -> None:
        """Rows without a label are skipped: test sets of contests have none."""
        has_label = np.ones(len(rows), np.bool_)
        if self._label is not None:
            has_label = np.fromiter(map(bool, self._columns[self._label].cells), np.bool_, len(rows))
        for place in np.flatnonzero(~has_label).tolist():
            where = f"{self._shards[table_of[place]].shown} row {rows[place] + 1}"
            self.skipped.append((where, "it has no label"))
        if len(rows) and not has_label.any():
            raise DataError(
                f"dataset {self._name!r} has no label in any of its {len(rows):,} rows, expected one in each; "
                "fill them in, or choose another split"
            )
        self._kept = array("q", np.flatnonzero(has_label).astype(np.int64).tobytes())
        for place in self._kept:
            self.contents.add(table_of[place], rows[place])
        self._numbers = _RowNames(self._shards, table_of, rows, self._kept)

    def rows(self) -> Iterator[Labels]:
        """The labels of the rows, in order."""
        if self._all is not None:
            yield from (Labels(self._all) for _ in self._kept)
            return
        cells = {name: one.of(self._kept) for name, one in self._columns.items()}
        if self._label is not None and self._label not in column_roles(self._name, list(cells)).values():
            cells["label"] = cells.pop(self._label)
        self._columns.clear()
        table = picked(self._name, {**cells, "path": ["image"] * len(self._kept)}, self._numbers)
        self.remarks += table.remarks
        for place, label in enumerate(table.labels):
            split = self._numbers.shard(place).split or (table.splits[place] if table.splits else None)
            group = table.groups[place] if table.groups else None
            yield Labels(unicodedata.normalize("NFC", label), split, group)


class _Texts:
    """Cells of a column as text; missing ones are empty."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self._known: dict[Any, str] = {}

    def extend(self, values: Sequence[Any], names: Sequence[str] | None) -> None:
        if len(self._known) > _MOST_KNOWN:
            self._known = {}
        for value in values:
            key = (type(value), value)
            if key not in self._known:
                self._known[key] = text_of(value, names)
            self.cells.append(self._known[key])

    def of(self, places: Sequence[int]) -> list[str]:
        """The cells of some rows."""
        return self.cells if len(places) == len(self.cells) else [self.cells[place] for place in places]


class _RowNames(Sequence[str]):
    """How messages call the rows: ``17 of part-1.parquet``."""

    def __init__(
        self, shards: Sequence[Shard], table_of: array[int], rows: array[int], kept: Sequence[int]
    ) -> None:
        self._shards, self._table_of, self._rows, self._kept = shards, table_of, rows, kept

    def __len__(self) -> int:
        return len(self._kept)

    def shard(self, place: int) -> Shard:
        """The table of a row."""
        return self._shards[self._table_of[self._kept[place]]]

    def __getitem__(self, place: Any) -> Any:
        return f"{self._rows[self._kept[place]] + 1} of {self.shard(place).shown!r}"


def _label_column(name: str, columns: Sequence[str], coded: Sequence[str]) -> str | None:
    """The column of labels by its name, else the only one with names of classes; None if `picked` must find it."""
    label = column_roles(f"dataset {name!r}", columns).get("label")
    return label or (coded[0] if len(coded) == 1 else None)


def is_plain(kind: Any) -> bool:
    """Whether cells are text or numbers."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return is_plain(kind.value_type)
    names = ("is_string", "is_large_string", "is_string_view", "is_integer", "is_floating", "is_boolean")
    return any(getattr(types, name)(kind) for name in names if hasattr(types, name))


def class_names(metadata: Mapping[bytes, bytes] | None, address: str = "") -> dict[str, Sequence[str]]:
    """Names of the classes of each column, as Hugging Face writes them with the schema or next to the table."""
    features = _features((metadata or {}).get(b"huggingface", b""), "info")
    info = os.path.join(os.path.dirname(address), _INFO)
    if not features and address and not is_remote(address) and os.path.isfile(info):
        with open(info, "rb") as file:
            features = _features(file.read())
    found = {name: one.get("names") for name, one in features.items() if isinstance(one, dict)}
    return {name: names for name, names in found.items() if isinstance(names, list)}


def _features(text: bytes, *keys: str) -> dict[str, Any]:
    try:
        found = json.loads(text or b"{}")
        for key in (*keys, "features"):
            found = found[key]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def text_of(value: Any, names: Sequence[str] | None) -> str:
    """A cell as text: codes of classes become names; empty where there is none."""
    if names is not None and isinstance(value, int) and _NO_LABEL <= value < len(names):
        return "" if value == _NO_LABEL else str(names[value])
    return "" if value is None else str(value).strip()
