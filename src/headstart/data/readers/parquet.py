"""Columns of a Parquet table; images in its cells are written into the cache as files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.data.names import shown
from headstart.data.readers.download import cache_folder
from headstart.errors import BrokenDataError, DataError
from headstart.system.leftovers import new_folder, sweep
from headstart.system.optional import require

__all__ = ["parquet_columns"]

_ROWS = 256  # read at a time: cells may hold whole images
_CHUNK_BYTES = 1024**2


def parquet_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the number of each row, from 1.

    A column of images, as bytes or as Hugging Face's ``{bytes, path}``, becomes the paths of files in the cache.
    Classes that Hugging Face stores as numbers get their names.
    """
    parquet = require("pyarrow.parquet", extra="tables", for_=f"table {table.name!r}")
    try:
        file = parquet.ParquetFile(table)
        images = [field.name for field in file.schema_arrow if _holds_images(field.type)]
        others = [name for name in file.schema_arrow.names if name not in images]
        cells = {name: list(column) for name, column in file.read(others).to_pydict().items()}
        n_rows = file.metadata.num_rows
        paths = {name: _written(table, file, name) for name in images}
    except (OSError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenDataError(
            f"table {str(table)!r} cannot be read ({reason}), expected a whole Parquet file; write it again"
        ) from error
    named = _class_names(file.schema_arrow.metadata or {})
    columns = {
        name: paths[name] if name in paths else [_cell(cell, named.get(name)) for cell in cells[name]]
        for name in file.schema_arrow.names
    }
    plain = [name.strip().lower() for name in columns]
    twice = sorted({name for name in plain if plain.count(name) > 1})
    if twice:
        raise DataError(
            f"table {str(table)!r} has the column {shown(twice)} more than once, expected each name once; "
            "rename or drop the others"
        )
    return dict(zip(plain, columns.values(), strict=True)), list(range(1, 1 + n_rows))


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _written(table: Path, file: Any, name: str) -> list[str]:
    """Paths of the images of a column, written once for the content of the table; empty where there is none."""
    home = (
        cache_folder().parent
        / "archives"
        / f"{_digest(table)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    )
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        sweep(home)  # what killed runs left
        with new_folder(home) as draft:
            for number, cell in enumerate(_cells(file, name)):
                data = _bytes(cell)
                if data is not None:
                    (draft / f"{number + 1:08}").write_bytes(data)
            _move(draft, home)
    return [_path(home, number, cell) for number, cell in enumerate(_cells(file, name))]


def _cells(file: Any, name: str) -> Any:
    return (
        cell for batch in file.iter_batches(_ROWS, columns=[name]) for cell in batch.column(0).to_pylist()
    )


def _bytes(cell: Any) -> bytes | None:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return data if data else None


def _path(home: Path, number: int, cell: Any) -> str:
    """The file of a cell's bytes, else the path that the cell names."""
    if _bytes(cell) is not None:
        return str(home / f"{number + 1:08}")
    return str(cell.get("path") or "") if isinstance(cell, Mapping) else ""


def _move(draft: Path, home: Path) -> None:
    """Put files in place; another process may have been faster."""
    try:
        draft.rename(home)
    except OSError:
        if not home.is_dir():
            raise


def _digest(table: Path) -> str:
    digest = hashlib.sha256()
    with table.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()[:32]


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, Sequence[str]]:
    """Names of the classes of each column, as Hugging Face writes them beside the schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {name: one.get("names") for name, one in features.items() if isinstance(one, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: names for name, names in found.items() if isinstance(names, list)}


def _cell(value: Any, names: Sequence[str] | None) -> str:
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return str(names[value])
    return "" if value is None else str(value).strip()
