"""Shards as others write them: WebDataset tars, Parquet and Arrow files of `datasets`, without these packages."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

CLASSES = ("ant", "bee", "cat")


def image_folder(home: Path, n_images: int = 24, classes: Sequence[str] = CLASSES) -> list[Path]:
    """A folder of class folders with small different images; their paths in the order in which they are read."""
    for number in range(n_images):
        label = classes[number % len(classes)]
        (home / label).mkdir(parents=True, exist_ok=True)
        values = bytes((number * 37 + pixel * (number + 3)) % 256 for pixel in range(12 * 10 * 3))
        Image.frombytes("RGB", (12, 10), values).save(home / label / f"{number:05}.png")
    return sorted(home.rglob("*.png"))


def tar_of(path: Path, members: Iterable[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar archive of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(paths: Iterable[Path], label: str = "cls") -> list[tuple[str, bytes]]:
    """Members of WebDataset samples: ``ant/00001.png`` and ``ant/00001.cls``."""
    members = []
    for path in paths:
        name = path.parent.name
        text = json.dumps({"label": name, "width": 12}) if label == "json" else name
        key = f"{name}/{path.stem}"
        members += [(f"{key}.png", path.read_bytes()), (f"{key}.{label}", text.encode())]
    return members


def cells(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Cells of the image column of `datasets`."""
    return [{"bytes": path.read_bytes(), "path": path.name} for path in paths]


def image_table(paths: Sequence[Path], codes: Sequence[str] | None = None, **columns: list[Any]) -> Any:
    """A table of images and labels; with ``codes``, labels are numbers and their names stand in the metadata."""
    import pyarrow

    names = [path.parent.name for path in paths]
    labels: list[Any] = names if codes is None else [codes.index(name) for name in names]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array(cells(paths), kind), "label": labels, **columns})
    if codes is None:
        return table
    features = {"image": {"_type": "Image"}, "label": {"names": list(codes), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet_of(path: Path, table: Any, rows_per_group: int = 5) -> Path:
    """A Parquet file with several row groups."""
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=rows_per_group)
    return path


def saved_to_disk(home: Path, tables: Sequence[Any], rows_per_batch: int = 4) -> Path:
    """A folder as `datasets` saves it: Arrow streams, with the names of their files in state.json."""
    from pyarrow import ipc

    home.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(tables):05}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with ipc.new_stream(home / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows_per_batch)
    files = [{"filename": name} for name in names]
    (home / "state.json").write_text(json.dumps({"_data_files": files, "_split": None}))
    (home / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return home


def in_parts(items: Sequence[Any], n_parts: int) -> list[Sequence[Any]]:
    """Consecutive parts of nearly equal size."""
    size = -(-len(items) // n_parts)
    return [items[first : first + size] for first in range(0, len(items), size)]


def all_kinds(home: Path, paths: Sequence[Path]) -> Mapping[str, Path]:
    """The images of a class folder in every kind of shard, by the name of the kind."""
    parts = in_parts(paths, 3)
    for number, some in enumerate(parts):
        tar_of(home / "tars" / f"part-{number:04}.tar", samples(some))
        tar_of(home / "json" / f"part-{number:04}.tar", samples(some, "json"), tarfile.GNU_FORMAT)
        parquet_of(home / "tables" / f"part-{number}.parquet", image_table(some))
        parquet_of(home / "coded" / f"part-{number}.parquet", image_table(some, CLASSES), 100)
    saved_to_disk(home / "saved", [image_table(some, CLASSES) for some in parts])
    return {name: home / name for name in ("tars", "json", "tables", "coded", "saved")}
