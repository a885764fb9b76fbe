"""One contract over the registry of table formats: a new one needs a writer here, and nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.readers.load import load
from headstart.data.readers.tables import TABLES
from headstart.errors import BrokenDataError, DataError

Row = Sequence[str]


def write_csv(path: Path, header: Row, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def write_parquet(path: Path, header: Row, rows: Sequence[Row]) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs headstart[tables]")
    from pyarrow import parquet

    columns = zip(*rows, strict=True)
    parquet.write_table(arrow.table(dict(zip(header, map(list, columns), strict=True))), path)


def write_tsv(path: Path, header: Row, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([header, *rows])


def write_json(path: Path, header: Row, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps([dict(zip(header, row, strict=True)) for row in rows]))


def write_jsonl(path: Path, header: Row, rows: Sequence[Row]) -> None:
    path.write_text("\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows))


WRITERS: dict[str, Callable[[Path, Row, Sequence[Row]], None]] = {
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".jsonl": write_jsonl,
    ".json": write_json,
    ".parquet": write_parquet,
}
HEADER = ("path", "label", "split", "writer")
ROWS = [("0.png", "ant", "train", "g"), ("1.png", "bee", "test", "h"), ("0.png", "ant", "train", "g")]


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for number in range(2):
        Image.fromarray(np.full((4, 6), 90 * number, np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path / f"table{request.param}"


def test_a_table_is_read(table: Path) -> None:
    WRITERS[table.suffix](table, HEADER, ROWS)
    data = load(table)
    assert data.name == "table" and data.labels.tolist() == ["ant", "bee", "ant"]
    assert data.splits is not None and data.splits.tolist() == ["train", "test", "train"]
    assert data.groups is not None and data.groups.tolist() == ["g", "h", "g"]


def test_a_missing_column_and_an_empty_cell_are_named(table: Path) -> None:
    WRITERS[table.suffix](table, ("path", "size"), [row[:2] for row in ROWS])
    with pytest.raises(DataError, match="expected path and label; add or rename label"):
        load(table)
    WRITERS[table.suffix](table, HEADER, [*ROWS, ("1.png", "", "test", "h")])
    with pytest.raises(DataError, match=r"^row \d of .* has no label \(1 such rows\)"):
        load(table)


def test_a_file_that_is_no_table_is_one_sentence(table: Path) -> None:
    table.write_bytes(b"\x00\xff\xfe no table" * 9)
    with pytest.raises((BrokenDataError, DataError)) as caught:
        load(table)
    assert table.name in str(caught.value) and "\n" not in str(caught.value)
