"""Columns of a Parquet table."""

from __future__ import annotations

from pathlib import Path

from headstart.errors import BrokenDataError
from headstart.system.optional import require

__all__ = ["parquet_columns"]


def parquet_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the number of each row, from 1."""
    parquet = require("pyarrow.parquet", extra="tables", for_=f"table {table.name!r}")
    try:
        read = parquet.ParquetFile(table).read().to_pydict()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenDataError(
            f"table {str(table)!r} cannot be read ({reason}), expected a whole Parquet file; write it again"
        ) from error
    columns = {
        name.strip().lower(): ["" if cell is None else str(cell).strip() for cell in cells]
        for name, cells in read.items()
    }
    return columns, list(range(1, 1 + max((len(cells) for cells in columns.values()), default=0)))
