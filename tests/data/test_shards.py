"""Images in shards on this machine: the same dataset from a folder, tars and tables, and damaged shards."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import load
from headstart.data.contents.blocks import Blocks, blocks
from headstart.data.contents.protocol import Names
from headstart.data.dataset import Dataset
from headstart.data.readers import files
from headstart.data.readers.hub import hub_files
from headstart.data.readers.sharded import named_listing, shard_listing, without_subset
from headstart.data.readers.shards import described, expanded
from headstart.data.readers.unlabelled import UNLABELLED, load_unlabelled
from headstart.data.reading import reading
from headstart.errors import BrokenDataError, DataError, HeadstartError, MissingDataError
from headstart.records import InputSpec
from headstart.sources.features import extract
from headstart.sources.registry import open_source
from image_files import saved
from shard_files import (
    CLASSES,
    all_kinds,
    cells,
    image_folder,
    image_table,
    in_parts,
    parquet_of,
    samples,
    saved_to_disk,
    tar_of,
)

pyarrow = pytest.importorskip("pyarrow", reason="needs headstart[tables]")

KINDS = ("tars", "json", "tables", "coded", "saved")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return image_folder(tmp_path / "folder")


def said(error: pytest.ExceptionInfo[HeadstartError]) -> str:
    """The sentence of an error, which is one line."""
    text = str(error.value)
    assert "\n" not in text and ", expected " in text and "; " in text
    return text


# the same images


@pytest.mark.parametrize("kind", KINDS)
def test_shards_are_the_dataset_that_the_folder_is(kind: str, tmp_path: Path, paths: list[Path]) -> None:
    folder, shards = load(tmp_path / "folder"), load(all_kinds(tmp_path, paths)[kind])
    assert shards.fingerprint == folder.fingerprint and shards.images.digests == folder.images.digests
    assert shards.classes == CLASSES and shards.labels.tolist() == folder.labels.tolist()
    assert not shards.skipped and not shards.remarks and shards.name == kind
    assert shards.images.paths is None and shards.images.pixels is None
    spec = InputSpec(8, 8, 3)
    for place in (0, 5, 23, 11, 12):
        assert np.array_equal(shards.images.image(place), folder.images.image(place))
        assert np.array_equal(shards.images.prepared(place, spec), folder.images.prepared(place, spec))


def test_features_are_the_same_and_shared_by_all(tmp_path: Path, paths: list[Path]) -> None:
    kinds = all_kinds(tmp_path, paths)
    source = open_source("pixels")
    expected = extract(load(tmp_path / "folder"), source)
    for kind, home in kinds.items():
        assert np.array_equal(extract(load(home), source), expected), kind


def test_names_say_where_an_image_lies(tmp_path: Path, paths: list[Path]) -> None:
    kinds = all_kinds(tmp_path, paths)
    names = [load(kinds[kind]).images.image_name(9) for kind in ("tars", "tables", "saved")]
    assert names == ["part-0001.tar:bee/00004.png", "part-1.parquet row 2", "data-00001-of-00003.arrow row 2"]


def test_patterns_and_subsets(tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    all_kinds(tmp_path, paths)
    monkeypatch.chdir(tmp_path)
    whole = load("folder").fingerprint
    for pattern in (
        "tars/part-{0000..0002}.tar",
        "tars/*.tar",
        "tables/part-{0,1,2}.parquet",
        "t*es/*.parquet",
    ):
        assert load(pattern).fingerprint == whole, pattern
    assert load(f"file://{tmp_path}/tars").fingerprint == whole
    assert load("tables/*.parquet").name == "tables"
    for name in (
        "tars:ant,bee",
        "tars/*.tar:ant,bee",
        f"{tmp_path}/tables:ant,bee",
        "tables/part-{0..2}.parquet:ant,bee",
    ):
        some = load(name)
        assert (len(some), some.classes) == (16, ("ant", "bee")), name
    assert load("tars/part-0001.tar").images.digests == load("folder").images.digests[8:16]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mnist", ("mnist", "")),
        ("mnist:odd", ("mnist", "odd")),
        ("s3://bucket/a.tar", ("s3://bucket/a.tar", "")),
        ("s3://bucket/a:b/c.tar", ("s3://bucket/a:b/c.tar", "")),
        ("s3://bucket/a.tar:0-4", ("s3://bucket/a.tar", "0-4")),
        ("gs://bucket/x/:a,b", ("gs://bucket/x/", "a,b")),
        ("hf:owner/name", ("hf:owner/name", "")),
        ("hf:owner/name:odd", ("hf:owner/name", "odd")),
        ("memory://a:odd", ("memory://a", "odd")),
    ],
)
def test_the_colon_of_an_address_is_no_subset(text: str, parts: tuple[str, str]) -> None:
    assert without_subset(text) == parts


def test_braces() -> None:
    assert expanded("a-{08..10}-{x,y}") == [f"a-{n}-{s}" for n in ("08", "09", "10") for s in "xy"]
    assert expanded("{x}") == ["{x}"] and expanded("plain") == ["plain"]
    with pytest.raises(
        DataError, match=r"range '\{9\.\.1\}' of 'a\{9\.\.1\}' has 0 names, expected 1 to 1,000,000"
    ) as error:
        expanded("a{9..1}")
    said(error)


# splits


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-0000.tar", "val-0000.tar", "test-0000.tar"], ["train", "val", "test"]),
        (["a-train-00000-of-00001.parquet", "a-validation-00000-of-00001.parquet"], ["train", "val"]),
        (["train/0000.parquet", "test/0000.parquet"], ["train", "test"]),
        (["train-1.tar", "train-2.tar"], [None, None]),
        (["1.tar", "2.tar"], [None, None]),
    ],
)
def test_splits_are_in_the_names(names: list[str], splits: list[str | None]) -> None:
    shards, remarks = described("x", [f"/data/set/{name}" for name in names])
    assert [one.split for one in shards] == splits and not remarks
    assert [one.shown for one in shards] == names


def test_a_name_without_a_split_next_to_some(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'x' has 'more.tar', whose name says no split, next to shards of 'test', 'train'"
    ) as error:
        described("x", ["/a/train.tar", "/a/test.tar", "/a/more.tar"])
    said(error)


def test_shards_that_are_missing_are_a_remark(tmp_path: Path, paths: list[Path]) -> None:
    for number in (0, 2):
        parquet_of(tmp_path / "some" / f"train-{number:05}-of-00003.parquet", image_table(paths[number::3]))
    assert load(tmp_path / "some").remarks == ("train has 2 of 3 shards: the others are missing",)
    parquet_of(tmp_path / "hub" / "partial-train" / "0.parquet", image_table(paths[:12]))
    parquet_of(tmp_path / "hub" / "test" / "0.parquet", image_table(paths[12:]))
    data = load(tmp_path / "hub")
    assert data.remarks == ("partial-train holds the first part of its split only",)
    assert data.splits is not None and data.splits.tolist() == ["train"] * 12 + ["test"] * 12


def test_splits_and_groups_from_columns_and_json(tmp_path: Path, paths: list[Path]) -> None:
    splits, groups = ["train"] * 16 + ["test"] * 8, [f"w{n % 4}" for n in range(24)]
    parquet_of(tmp_path / "t.parquet", image_table(paths, split=splits, writer=groups))
    records = [
        json.dumps({"class": path.parent.name, "split": split, "group": group}).encode()
        for path, split, group in zip(paths, splits, groups, strict=True)
    ]
    members = [
        one
        for path, record in zip(paths, records, strict=True)
        for one in ((f"{path.stem}.png", path.read_bytes()), (f"{path.stem}.json", record))
    ]
    tar_of(tmp_path / "t.tar", members)
    for name in ("t.parquet", "t.tar"):
        data = load(tmp_path / name)
        assert data.splits is not None and data.splits.tolist() == splits
        assert data.groups is not None and data.groups.tolist() == groups
        assert len(data.split("test")) == 8


def test_folders_of_the_hub(tmp_path: Path, paths: list[Path]) -> None:
    """The layout of the hub's Parquet files: configuration, split, number."""
    pytest.importorskip("fsspec", reason="needs headstart[buckets]")
    for split, some in (("train", paths[:16]), ("test", paths[16:])):
        parquet_of(tmp_path / "owner/name/plain" / split / "0000.parquet", image_table(some, CLASSES))
    root = f"local://{tmp_path}/{{name}}"
    found = hub_files("owner/name", None, (f"local://{tmp_path}/nothing/{{name}}", root))
    assert [Path(one).parts[-2:] for one in found] == [("test", "0000.parquet"), ("train", "0000.parquet")]
    listing = shard_listing("hf:owner/name", found, name="owner/name")
    data = files.read_images(listing, strict=True)
    assert data.name == "owner/name" and data.classes == CLASSES
    assert (len(data.split("train")), len(data.split("test"))) == (16, 8)
    parquet_of(tmp_path / "owner/name/other/train/0000.parquet", image_table(paths, CLASSES))
    with pytest.raises(
        DataError, match=r"'hf:owner/name' has several configurations, expected one of 'other', 'plain'"
    ) as error:
        hub_files("owner/name", None, (root,))
    said(error)
    assert len(hub_files("owner/name", "other", (root,))) == 1
    with pytest.raises(DataError, match="has no configuration 'third'"):
        hub_files("owner/name", "third", (root,))
    with pytest.raises(MissingDataError, match="'hf:owner/nobody' has no Parquet files on the hub"):
        hub_files("owner/nobody", None, (root,))


def test_a_dict_of_saved_datasets(tmp_path: Path, paths: list[Path]) -> None:
    home = tmp_path / "dict"
    saved_to_disk(home / "train", [image_table(some, CLASSES) for some in in_parts(paths[:16], 2)])
    saved_to_disk(home / "test", [image_table(paths[16:], CLASSES)])
    (home / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    (home / "train" / "cache-1234.arrow").write_bytes(
        (home / "test" / "data-00000-of-00001.arrow").read_bytes()
    )
    data = load(home)
    assert (len(data), len(data.split("train")), len(data.split("test"))) == (24, 16, 8)
    assert data.split("train").images.digests == load(tmp_path / "folder").images.digests[:16]


# WebDataset


def test_members_of_a_sample_and_their_labels(tmp_path: Path, paths: list[Path]) -> None:
    one, two, three, four = (path.read_bytes() for path in paths[:4])
    members = [
        ("./a/1.png", one),
        ("./a/1.cls", b"3\n"),
        ("./a/1.txt", b"a caption"),
        ("a/2.seg.png", four),
        ("a/2.png", two),
        ("a/2.json", b'{"Label": 10}'),
        ("a/2.cls", b"9"),
        ("b/scan.v2.png", three),
        ("b/scan.v2.cls", b"3"),
        ("b/scan.v3.png", four),
        ("b/scan.v3.cls", b"9"),
        ("c/9.png", one),
        ("c/9.txt", b"no label"),
        ("c/10.png", two),
        ("c/10.json", b"{}"),
        ("c/11.png", three),
        ("c/11.json", b"["),
        ("c/12.cls", b"1"),
        (".hidden.png", one),
        ("c/13.PNG", four),
        ("c/13.CLS", b"3"),
        ("c/14.png", b"no image"),
        ("c/14.cls", b"3"),
        ("c/15.png", one),
        ("c/15.cls", b" "),
    ]
    data = load(tar_of(tmp_path / "s.tar", members))
    assert data.labels.tolist() == ["3", "9", "3", "9", "3"] and data.classes == ("3", "9")
    assert [data.images.image_name(n) for n in range(3)] == [
        "s.tar:./a/1.png",
        "s.tar:a/2.png",
        "s.tar:b/scan.v2.png",
    ]
    assert dict(data.skipped) == {
        "s.tar:c/9.png": "it has no label, and its sample has 'txt': expected .cls, or .json with a label",
        "s.tar:c/10.png": "its 'c/10.json' has nothing, expected a label among them; add it",
        "s.tar:c/11.png": "its 'c/11.json' is no JSON; write it again",
        "s.tar:c/15.png": "its label in 'c/15.cls' is empty; write one",
        "s.tar:c/14.png": dict(data.skipped)["s.tar:c/14.png"],
    }
    assert "2 members '.txt' of samples are not used" in data.remarks
    assert "1 members '.seg.png' of samples are not used" in data.remarks
    with pytest.raises(BrokenDataError, match=r"s.tar:c/"):
        load(tmp_path / "s.tar", strict=True)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_strange_names(kind: int, tmp_path: Path, paths: list[Path]) -> None:
    long = "/".join(["w" * 60, "ünï ☃"[: 4 if kind == tarfile.USTAR_FORMAT else None], "x" * 70])
    if kind != tarfile.USTAR_FORMAT:
        long = "deep/" * 60 + long
    members = [(f"{long}.png", paths[0].read_bytes()), (f"{long}.cls", "größe".encode())]
    data = load(tar_of(tmp_path / "t.tar", [*members, *samples(paths[1:3])], kind))
    assert data.images.image_name(0) == f"t.tar:{long}.png" and data.labels[0] == "größe"
    assert data.images.digests == load(tmp_path / "folder").images.digests[:3]


def test_names_that_are_no_text(tmp_path: Path, paths: list[Path]) -> None:
    tar_of(tmp_path / "t.tar", samples(paths[:2]))
    raw = (tmp_path / "t.tar").read_bytes()
    old, new = b"ant/00000.", b"ant/\xff\xfe000."
    changed = raw.replace(old, new)
    header_sum = sum(new) - sum(old)
    parts = [bytearray(changed[first : first + 512]) for first in range(0, len(changed), 512)]
    for part in parts:
        if part.startswith(new):
            part[148:156] = f"{int(part[148:154], 8) + header_sum:06o}\0 ".encode()
    (tmp_path / "t.tar").write_bytes(b"".join(parts))
    data = load(tmp_path / "t.tar")
    assert data.images.image_name(0).encode("utf-8", "surrogateescape") == b"t.tar:ant/\xff\xfe000.png"
    assert pickle.loads(pickle.dumps(data.images)).image_name(0) == data.images.image_name(0)


def test_a_file_of_classes_names_the_numbers(tmp_path: Path, paths: list[Path]) -> None:
    members = [
        one
        for n, path in enumerate(paths)
        for one in (
            (f"{n}.png", path.read_bytes()),
            (f"{n}.cls", str(CLASSES.index(path.parent.name)).encode()),
        )
    ]
    tar_of(tmp_path / "tars" / "1.tar", members)
    assert load(tmp_path / "tars").classes == ("0", "1", "2")
    (tmp_path / "tars" / "classes.txt").write_text("ant\nbee\ncat\n")
    data = load(tmp_path / "tars")
    assert data.fingerprint == load(tmp_path / "folder").fingerprint
    assert data.remarks == (f"names of classes are those of {str(tmp_path / 'tars' / 'classes.txt')!r}",)
    (tmp_path / "tars" / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(
        DataError, match=r"label '2' of '16.cls' is not in '.*classes.txt', expected a whole number below 2"
    ) as error:
        load(tmp_path / "tars")
    said(error)


def test_a_file_of_classes_is_for_numbers_only(tmp_path: Path, paths: list[Path]) -> None:
    tar_of(tmp_path / "tars" / "1.tar", samples(paths))
    (tmp_path / "tars" / "classes.txt").write_text("one\ntwo\n")
    assert load(tmp_path / "tars").fingerprint == load(tmp_path / "folder").fingerprint


def test_groups_of_some_images_only(tmp_path: Path, paths: list[Path]) -> None:
    members = samples(paths[:4], "json")
    members[3] = (members[3][0], b'{"label": "ant", "group": "w1"}')
    with pytest.raises(
        DataError, match="dataset 't' has no group for 3 of its 4 images, expected one for all"
    ) as error:
        load(tar_of(tmp_path / "t.tar", members))
    said(error)


def test_a_tar_of_class_folders_is_unpacked_as_before(tmp_path: Path, paths: list[Path]) -> None:
    tar_of(tmp_path / "t.tar", [(f"{path.parent.name}/{path.name}", path.read_bytes()) for path in paths])
    data = load(tmp_path / "t.tar")
    assert data.images.paths is not None and data.fingerprint == load(tmp_path / "folder").fingerprint


def test_links_and_folders_in_a_tar(tmp_path: Path, paths: list[Path]) -> None:
    tar_of(tmp_path / "t.tar", samples(paths[:3]))
    with tarfile.open(tmp_path / "t.tar", "a") as tar:
        link, folder = tarfile.TarInfo("ant/9.png"), tarfile.TarInfo("more")
        link.type, link.linkname, folder.type = tarfile.SYMTYPE, "ant/00000.png", tarfile.DIRTYPE
        tar.addfile(link)
        tar.addfile(folder)
    data = load(tmp_path / "t.tar")
    assert len(data) == 3 and [name for name, _ in data.skipped] == ["t.tar:ant/9.png"]


# faults


def cut(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:n_bytes])


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda path: cut(path, 4700),
            r"shard '.*t.tar' ends within 'ant/00006.png', expected a whole tar archive",
        ),
        (
            lambda path: cut(path, 4200),
            r"shard '.*t.tar' ends within 'ant/00003.cls', expected a whole tar archive",
        ),
        (lambda path: path.write_bytes(b""), "shard '.*t.tar' is empty"),
        (
            lambda path: path.write_bytes(b"\x1f\x8b" + b"1" * 2000),
            "is compressed with gzip, expected a plain tar archive",
        ),
        (lambda path: path.write_bytes(b"no tar" * 500), "is no tar archive"),
    ],
)
def test_a_damaged_tar(
    damage: Callable[[Path], object], sentence: str, tmp_path: Path, paths: list[Path]
) -> None:
    home = tmp_path / "tars"
    tar_of(home / "t.tar", samples(paths))
    damage(home / "t.tar")
    with pytest.raises(BrokenDataError, match=sentence) as error:
        load(home)
    said(error)


def test_a_header_that_is_damaged(tmp_path: Path, paths: list[Path]) -> None:
    path = tar_of(tmp_path / "t.tar", samples(paths))
    data = bytearray(path.read_bytes())
    place = data.index(b"ant/00003.png")
    data[place + 60] = 7
    path.write_bytes(data)
    with pytest.raises(
        BrokenDataError, match=r"is damaged after 'ant/00000.cls', expected a whole tar archive"
    ) as error:
        load(path)
    said(error)


def test_an_archive_without_its_end_is_a_remark(tmp_path: Path, paths: list[Path]) -> None:
    path = tar_of(tmp_path / "t.tar", samples(paths))
    cut(path, len(path.read_bytes().rstrip(b"\0")) // 512 * 512 + 512)
    data = load(path)
    assert len(data) == 24 and data.remarks == ("shard 't.tar' has no end mark: it may be cut",)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_a_cut_table(name: str, tmp_path: Path, paths: list[Path]) -> None:
    if name == "t.parquet":
        parquet_of(tmp_path / name, image_table(paths))
    else:
        home = saved_to_disk(tmp_path / "saved", [image_table(paths)])
        (home / "data-00000-of-00001.arrow").rename(tmp_path / name)
    cut(tmp_path / name, (tmp_path / name).stat().st_size * 2 // 3)
    with pytest.raises(
        BrokenDataError, match=rf"table '.*{name}' cannot be read \(.*\), expected a whole"
    ) as error:
        load(tmp_path / name)
    said(error)


def test_rows_that_cannot_be_used(tmp_path: Path, paths: list[Path]) -> None:
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    rows = [
        *cells(paths[:2]),
        {"bytes": b"no image", "path": None},
        None,
        {"bytes": None, "path": "gone.png"},
    ]
    rows += [
        {"bytes": None, "path": str(paths[5])},
        {"bytes": None, "path": f"folder/cat/{paths[-1].name}"},
        *cells(paths[7:8]),
    ]
    table = pyarrow.table(
        {"image": pyarrow.array(rows, kind), "label": ["a", "b", "a", "b", "a", "b", "a", None]}
    )
    parquet_of(tmp_path / "t.parquet", table, 3)
    data = load(tmp_path / "t.parquet")
    digests = load(tmp_path / "folder").images.digests
    assert list(data.images.digests) == [digests[0], digests[1], digests[5], digests[-1]]
    assert [(name, reason.partition(";")[0]) for name, reason in data.skipped] == [
        ("t.parquet row 8", "it has no label"),
        ("t.parquet row 3", dict(data.skipped)["t.parquet row 3"].partition(";")[0]),
        ("t.parquet row 4", "it has no image"),
        ("t.parquet row 5", f"it names {str(tmp_path / 'gone.png')!r}, which does not exist"),
    ]
    with pytest.raises(BrokenDataError, match=r"image 't.parquet row 3' cannot be used"):
        load(tmp_path / "t.parquet", strict=True)


def test_unlabelled_rows_of_a_test_set_are_skipped(tmp_path: Path, paths: list[Path]) -> None:
    table = image_table(paths, CLASSES)
    codes = [*table["label"].to_pylist()[:20], -1, -1, -1, -1]
    table = table.set_column(1, "label", pyarrow.array(codes))
    data = load(parquet_of(tmp_path / "t.parquet", table))
    assert len(data) == 20 and [name for name, _ in data.skipped] == [
        f"t.parquet row {n}" for n in (21, 22, 23, 24)
    ]
    nothing = table.set_column(1, "label", pyarrow.array([-1] * 24))
    with pytest.raises(DataError, match="dataset 'u' has no label in any of its 24 rows"):
        load(parquet_of(tmp_path / "u.parquet", nothing))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"label": None}, "table 't' has the columns 'path', expected path and label"),
        ({"label": ["a|b", "a", "b"] * 8}, r"row 1 of 't.parquet' of 't' has the label 'a\|b'"),
        ({"split": ["x", "y", "z"] * 8}, r"row 1 of 't.parquet' of 't' has split 'x'"),
        ({"other": [b"x"] * 24}, None),
        ({"LABEL": ["a"] * 24}, "has the column 'label' more than once"),
    ],
)
def test_columns_that_are_not_clear(
    columns: dict[str, list[object] | None], sentence: str | None, tmp_path: Path, paths: list[Path]
) -> None:
    table = image_table(paths)
    for name, values in columns.items():
        if name == "label":
            table = table.drop_columns("label")
        if values is not None:
            table = table.append_column(name, pyarrow.array(values))
    path = parquet_of(tmp_path / "t.parquet", table)
    if sentence is None:
        assert load(path).images.digests == load(tmp_path / "folder").images.digests
        return
    with pytest.raises(DataError, match=sentence) as error:
        load(path)
    said(error)


def test_tables_of_other_columns_are_refused(tmp_path: Path, paths: list[Path]) -> None:
    parquet_of(tmp_path / "p" / "1.parquet", image_table(paths[:12]))
    parquet_of(tmp_path / "p" / "2.parquet", image_table(paths[12:], group=["w"] * 12))
    with pytest.raises(
        DataError, match=r"2.parquet' has the columns 'label', 'group', and '.*1.parquet' has 'label'"
    ) as error:
        load(tmp_path / "p")
    said(error)
    tar_of(tmp_path / "p" / "3.tar", samples(paths))
    with pytest.raises(DataError, match=r"has '.parquet', '.tar', expected shards of one kind") as error:
        load(tmp_path / "p")
    said(error)


def test_patterns_without_files(tmp_path: Path, paths: list[Path]) -> None:
    tar_of(tmp_path / "train-0.tar", samples(paths))
    for pattern, sentence in {
        "train-{0..3}.tar": r"'.*train-1.tar' does not exist, and 2 others are missing",
        "test-*.tar": r"'.*test-\*.tar' does not exist",
    }.items():
        with pytest.raises(MissingDataError, match=sentence) as error:
            load(tmp_path / pattern)
        said(error)


@pytest.mark.parametrize("kind", ["tars", "tables", "saved"])
def test_a_shard_that_has_changed(kind: str, tmp_path: Path, paths: list[Path]) -> None:
    home = all_kinds(tmp_path, paths)[kind]
    data = load(home)
    expected = data.images.image(20)
    (shard,) = [path for path in home.iterdir() if "2" in path.stem]
    others = paths[:8]
    if kind == "tars":
        tar_of(shard, samples(others))
    elif kind == "tables":
        parquet_of(shard, image_table(others))
    else:
        import shutil

        shutil.copy(home / "data-00000-of-00003.arrow", shard)
    copy = pickle.loads(pickle.dumps(data.images.subset(np.array([20]))))
    blocks().reset()
    try:
        assert np.array_equal(copy.image(0), expected)  # what is still open is what was read
    except BrokenDataError as error:
        assert "has changed since the dataset was read, expected it as it was" in str(error)
    assert load(home).images.fingerprint != data.images.fingerprint
    with pytest.raises(BrokenDataError, match="has changed since the dataset was read"):
        data.images.image(20)
    shard.unlink()
    blocks().reset()
    if kind == "tars":
        with pytest.raises(MissingDataError, match=r"image 'part-0002.tar:cat/\d+.png' does not exist"):
            data.images.image(20)


# size


@pytest.mark.slow
def test_a_part_of_many_is_small_in_another_process(tmp_path: Path, paths: list[Path]) -> None:
    many = [
        (name, data)
        for n in range(417)
        for name, data in ((f"{n:03}/{key}", data) for key, data in samples(paths))
    ]
    tar_of(tmp_path / "many.tar", many)
    data = load(tmp_path / "many.tar")
    assert len(data) == 10_008
    some = pickle.dumps(data.images.subset(np.arange(5_000, 5_010)))
    looks = pickle.dumps([data.images.look(place) for place in range(5_000, 5_010)])
    assert len(some) - len(looks) < 3_000
    assert pickle.loads(some).image_name(3) == data.images.image_name(5_003)
    assert np.array_equal(pickle.loads(some).image(3), data.images.image(5_003))


def test_more_images_than_have_looks(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = all_kinds(tmp_path, paths)
    monkeypatch.setattr(files, "MOST_LOOKS", 10)
    for kind in ("tars", "tables"):
        data = load(home[kind])
        assert len(pickle.dumps(data.images)) < 24 * 200
        assert data.images.look(20).content == load(tmp_path / "folder").images.look(20).content


def test_images_of_folders_tars_and_tables_together(tmp_path: Path, paths: list[Path]) -> None:
    kinds = all_kinds(tmp_path, paths)
    folder, tars, tables = (
        load(tmp_path / "folder").images,
        load(kinds["tars"]).images,
        load(kinds["tables"]).images,
    )
    both = tars.joined(tables)
    assert both is not None
    three = both.joined(folder)
    assert three is not None and list(three.digests) == 3 * list(folder.digests)
    some = pickle.loads(pickle.dumps(three.subset(np.array([70, 3, 30, 60, 29]))))
    for place, origin in enumerate([22, 3, 6, 12, 5]):
        assert np.array_equal(some.image(place), folder.image(origin))
    assert some.image_name(1) == tars.image_name(3) and some.paths is None


def test_names_take_their_bytes() -> None:
    names = Names(["a", "größe", "\udcff", ""])
    assert list(names) == ["a", "größe", "\udcff", ""] and len(names) == 4
    assert len(pickle.dumps(Names(["x" * 10] * 1000))) < 25_000


def test_blocks_forget_the_oldest_and_read_each_once() -> None:
    kept, read = Blocks(limit_bytes=100), []

    def load_of(key: str) -> Callable[[], tuple[str, int]]:
        return lambda: (read.append(key), (key, 40))[1]  # type: ignore[func-returns-value]

    for key in "aabac":
        assert kept.get(key, load_of(key)) == key
    assert read == ["a", "b", "c"] and kept.find("a") is None and kept.find("b") == "b"
    kept.put("huge", "huge", 1000)
    assert kept.find("huge") == "huge" and kept.find("b") is None
    with pytest.raises(ZeroDivisionError):
        kept.get("bad", lambda: (1 // 0, 1))
    assert kept.get("bad", load_of("bad")) == "bad"
    kept.drop(lambda key: key == "bad")
    assert kept.find("bad") is None


def test_a_folder_with_images_and_a_table_is_a_folder(tmp_path: Path, paths: list[Path]) -> None:
    parquet_of(tmp_path / "folder" / "extra.parquet", image_table(paths[:3]))
    data: Dataset = load(tmp_path / "folder")
    assert len(data) == 24 and data.images.paths is not None
    assert any(name.endswith("extra.parquet") for name, _ in data.skipped)


def test_images_without_labels(tmp_path: Path, paths: list[Path]) -> None:
    """Shards need no labels where these are not used."""
    folder = load_unlabelled(tmp_path / "folder")
    tar_of(
        tmp_path / "plain" / "1.tar",
        [(f"{path.parent.name}/{path.name}", path.read_bytes()) for path in paths],
    )
    parquet_of(tmp_path / "p" / "1.parquet", image_table(paths).drop_columns("label"))
    for name in ("plain", "p", "p/*.parquet", "plain/{1,1}.tar"):
        data = load_unlabelled(tmp_path / name)
        assert data.fingerprint == folder.fingerprint and data.classes == (UNLABELLED,), name
    unread = named_listing(str(tmp_path / "p" / "*.parquet"), UNLABELLED).unread()
    assert list(unread.digests) == list(folder.images.digests) and unread.depth_bits is None


def test_other_files_in_a_folder_of_shards_are_listed(tmp_path: Path, paths: list[Path]) -> None:
    home = saved_to_disk(tmp_path / "saved", [image_table(paths, CLASSES)])
    (home / "README.md").write_text("about")
    (home / "cache-1.arrow").write_bytes(b"")
    (home / ".hidden.arrow").write_bytes(b"")
    data = load(home)
    assert {Path(name).name: reason for name, reason in data.skipped} == {
        "README.md": "it is no shard",
        "cache-1.arrow": "it is no shard",
    }


def test_an_empty_table(tmp_path: Path, paths: list[Path]) -> None:
    parquet_of(tmp_path / "t.parquet", image_table(paths).slice(0, 0))
    with pytest.raises(DataError, match="dataset 't' has no image that can be read"):
        load(tmp_path / "t.parquet")
    parquet_of(tmp_path / "p" / "1.parquet", image_table(paths).slice(0, 0))
    parquet_of(tmp_path / "p" / "2.parquet", image_table(paths))
    assert load(tmp_path / "p").fingerprint == load(tmp_path / "folder").fingerprint


class Steps:
    """Progress that remembers its steps."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        self.seen.append((task, done, total))

    def remark(self, text: str) -> None:
        raise AssertionError(text)


@pytest.mark.parametrize("kind", ["tars", "tables"])
def test_progress_ends_with_all_images(
    kind: str, tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, steps = all_kinds(tmp_path, paths)[kind], Steps()
    monkeypatch.setattr(files, "_AHEAD", 4)
    monkeypatch.setattr(files, "throttled", lambda progress: progress.step)
    with reading(steps):
        load(home)
    assert {task for task, _, _ in steps.seen} == {f"read files of {kind}"}
    assert [done for _, done, _ in steps.seen] == list(range(1, 25)) and steps.seen[-1][2] == 24
    assert all(done <= total < 100 for _, done, total in steps.seen)


MEMORY = """
import resource, sys
from headstart.data import load
from headstart.data.contents.blocks import blocks
from headstart.data.images.prepare import batches
from headstart.records import InputSpec
blocks()._limit_bytes = 2**23
data = load(sys.argv[1])
n_images = sum(len(batch) for batch in batches(data, InputSpec(16, 16, 3), 16))
print(n_images, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tars", "tables"])
def test_memory_does_not_grow_with_the_shards(kind: str, tmp_path: Path) -> None:
    """Images of 0.75 MB: 45 MB in 2 shards, and 270 MB in 12."""
    rng, peaks = np.random.default_rng(0), []
    one = saved(Image.fromarray(rng.integers(0, 256, (512, 512, 3), np.uint8)), "BMP")
    for n_shards in (2, 12):
        home = tmp_path / f"{kind}-{n_shards}"
        for shard in range(n_shards):
            images = [(str(n), one[:-4] + struct.pack("<I", shard * 100 + n)) for n in range(30)]
            if kind == "tars":
                members = [[(f"{n}.bmp", data), (f"{n}.cls", b"ab"[int(n) % 2 :][:1])] for n, data in images]
                tar_of(home / f"{shard}.tar", [member for some in members for member in some])
            else:
                rows = [{"bytes": data, "path": None} for _, data in images]
                labels = ["ab"[int(n) % 2] for n, _ in images]
                parquet_of(home / f"{shard}.parquet", pyarrow.table({"image": rows, "label": labels}), 5)
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(home)], capture_output=True, text=True, check=True, timeout=120
        )
        n_images, peak_mb = map(int, done.stdout.split())
        assert n_images == 30 * n_shards
        peaks.append(peak_mb)
    assert peaks[1] < peaks[0] + 60, peaks
