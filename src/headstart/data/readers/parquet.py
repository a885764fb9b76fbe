"""Columns of a Parquet table that names image files; tables with images in their cells are `image_tables`."""

from __future__ import annotations

from pathlib import Path

from headstart.data.contents.tables import holds_images, open_table, readable
from headstart.data.readers.columns import plain_names
from headstart.data.readers.image_tables import class_names, image_column, text_of
from headstart.errors import DataError

__all__ = ["parquet_columns"]


def parquet_columns(table: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Cells by column, and the number of each row, from 1.

    Classes that Hugging Face stores as numbers get their names. DataError if there are images in its cells:
    those are read where they lie.
    """
    with readable(str(table)):
        file = open_table(str(table))
        images = image_column(str(table), file.schema)
        if images is not None:
            raise DataError(
                f"table {str(table)!r} has images in the column {images!r}, expected paths of files; give the table "
                "itself as the dataset"
            )
        names = [field.name for field in file.schema if not holds_images(field.type)]
        plain, classes = plain_names(str(table), names), class_names(file.schema.metadata, str(table))
        columns: dict[str, list[str]] = {name: [] for name in plain}
        for batch in file.batches(names):
            for column, name in zip(plain, names, strict=True):
                columns[column] += [
                    text_of(cell, classes.get(name)) for cell in batch.column(name).to_pylist()
                ]
    return columns, list(range(1, 1 + file.n_rows))
