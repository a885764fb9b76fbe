"""Layouts and tables that strangers tried: each was read wrongly, or refused with the wrong advice."""

from __future__ import annotations

import json
import os
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.readers.image_files import find_images
from headstart.data.readers.load import load
from headstart.errors import BrokenDataError, DataError, MissingDataError

Lay = Callable[..., Path]


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """Write images, all different: ``lay("train/cat 3", "one/x.png", "notes.txt")``."""

    def write(*places: str) -> Path:
        for place in places:
            path, _, count = place.partition(" x")
            names = [f"{path}/{number}.png" for number in range(int(count))] if count else [path]
            for name in names:
                file = tmp_path / "set" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                if file.suffix == ".png":
                    pixels = np.random.default_rng(len(list(tmp_path.rglob("*")))).integers(0, 256, (8, 8))
                    Image.fromarray(pixels.astype(np.uint8)).save(file)
                else:
                    file.write_text("words")
        return tmp_path / "set"

    return write


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HEADSTART_CACHE", str(home))
    return home


def counted(data: Dataset) -> dict[str, int]:
    """Images by split and class: ``{"train/cat": 3}``, or ``{"cat": 3}``."""
    splits = [""] * len(data) if data.splits is None else [f"{one}/" for one in data.splits]
    return dict(Counter(f"{split}{label}" for split, label in zip(splits, data.labels, strict=True)))


@pytest.mark.parametrize(
    ("places", "read", "n_skipped"),
    [
        ("1_train/a x2|1_train/b x2|2_test/a x1", "train/a 2 train/b 2 test/a 1", 0),
        ("train2017/a x2|train2017/b x2|val2017/b x1", "train/a 2 train/b 2 val/b 1", 0),
        (
            "train-20231101T120000Z-001/train/a x2|train-20231101T120000Z-001/train/b x2|"
            "test-20231101T120000Z-001/test/a x1",
            "train/a 2 train/b 2 test/a 1",
            0,
        ),
        ("trainval/a x2|trainval/b x2|hold-out/b x1", "train/a 2 train/b 2 test/b 1", 0),
        ("train/a x2|train/b x2|test/unknown x3", "train/a 2 train/b 2", 3),
        ("train/a/images x2|train/b/images x2|val/images x3|val/notes.txt", "train/a 2 train/b 2", 4),
        ("valid x2|invalid x2", "valid 2 invalid 2", 0),
        ("a x2|b x2|unlabeled x3", "a 2 b 2", 3),
        ("a x2|a/thumbs x2|b x2|b/_thumbnails x2", "a 2 b 2", 4),
        ("a x2|a/masks_png x2|b x2|b/SegmentationClass x2", "a 2 b 2", 4),
        ("a/x.png|a/x_mask.png|a/x_mask_1.png|b/y.png|b/mask_y.png|b/y-150x150.png", "a 1 b 1", 4),
        (
            "train/good x2|test/good x1|test/bad x1|ground_truth/bad x1",
            "train/good 2 test/good 1 test/bad 1",
            1,
        ),
        ("images/a x2|images/b x2|segmentations/a x2|segmentations/b x2|attributes/x.txt", "a 2 b 2", 5),
        ("train/images/a x2|train/images/b x2|train/labels/a/0.txt", "train/a 2 train/b 2", 1),
        ("pets/a x2|pets/b x2|preview.png", "a 2 b 2", 1),
        ("a/2019 x1|a/2020 x1|b/2019 x1|b/2020 x1", "a 2 b 2", 0),
        ("part1 x2|part2 x2", "part1 2 part2 2", 0),
        (
            "train/color x1|train/gray x1|test/color x1|test/gray x1",
            "train/color 1 train/gray 1 test/color 1 test/gray 1",
            0,
        ),
        ("Train/train/a x1|Train/train/b x1|Valid/valid/a x1", "train/a 1 train/b 1 val/a 1", 0),
        ("food/images/a x1|food/images/b x1|food/meta/train.json", "a 1 b 1", 1),
    ],
)
def test_layouts_are_read_as_their_makers_mean_them(lay: Lay, places: str, read: str, n_skipped: int) -> None:
    data = load(lay(*places.split("|")))
    words = read.split()
    assert counted(data) == dict(zip(words[::2], map(int, words[1::2]), strict=True))
    assert len(data.skipped) == n_skipped and all(reason for _, reason in data.skipped)


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        ("set1/a x1|set1/b x1|set2/a x1|set2/b x1", r"has 'set1', 'set2', expected folders of classes"),
        ("color/a x1|color/b x1|gray/a x1|gray/b x1", r"has 'color', 'gray', expected folders of classes"),
        (
            "rock x1|paper x1|rps/rock x1|rps/paper x1",
            r"and 'rps' has folders of the same names, expected each",
        ),
        ("cifar_train/a x1|cifar_test/a x1", r"'cifar_train', which are named for splits, expected"),
        ("train/images x2|train/labels/0.txt|valid/images x1", r"directly in 'train/images', 'valid/images'"),
        (
            "control x2|test x2",
            r"in 'test' next to 'control', .*, or rename a class that is called like a split",
        ),
        (
            "data/train/a x1|data/train/b x1|docs x2",
            r"give the folder that holds the dataset, such as '.*/data'",
        ),
        ("a.npz", r"has 0 images and no class folders \('.*a.npz' is not used: .*\), expected one folder"),
    ],
)
def test_layouts_that_are_refused(lay: Lay, places: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(lay(*places.split("|")))


def test_folders_that_are_the_same_in_each_class_are_remarked(lay: Lay) -> None:
    data = load(lay("north/a x1", "north/b x1", "south/a x1", "south/b x1"))
    assert data.remarks[0].startswith(
        "classes are 'north', 'south', and each has the same folders, such as 'a', 'b'"
    )
    assert load(lay("north/masks x1", "south/masks x1")).remarks == data.remarks


def test_a_link_inside_a_class_does_not_lead_up_to_the_others(lay: Lay) -> None:
    """A link to the dataset itself made every image of the other classes one of this class, too."""
    home = lay("a x2", "b x3")
    (home / "a/up").symlink_to(home)
    assert counted(load(home)) == {"a": 2, "b": 3}


def test_a_link_to_itself_is_one_file_that_is_skipped(lay: Lay) -> None:
    """It ended the reading of the whole folder: cannot be listed."""
    home = lay("a x2", "b x2")
    (home / "a/loop.png").symlink_to("loop.png")
    assert len(load(home).skipped) == 1
    assert len(list(find_images([str(home)]))) == 5  # predict lists it as unreadable


def test_a_table_labels_the_test_images_next_to_class_folders(lay: Lay) -> None:
    """GTSRB: Train has class folders, Test has images, and Test.csv has their classes."""
    home = lay("Train/0 x2", "Train/1 x2", "Test x3", "Meta/m.png")
    (home / "Test.csv").write_text(
        "Width,ClassId,Path\n" + "".join(f"9,{n % 2},Test/{n}.png\n" for n in range(3))
    )
    (home / "Meta.csv").write_text("Path,ClassId\nMeta/m.png,0\n")
    data = load(home)
    assert counted(data) == {"train/0": 2, "train/1": 2, "test/0": 2, "test/1": 1}
    assert data.remarks == (f"labels of test are those of {str(home / 'Test.csv')!r}",)
    assert sorted(Path(path).name for path, _ in data.skipped) == ["Meta.csv", "m.png"]


def test_a_table_next_to_the_only_folder_of_images_of_a_split(lay: Lay) -> None:
    home = lay("train/images x2", "test/images x2")
    for split in ("train", "test"):
        (home / split / "metadata.csv").write_text("file_name,label\nimages/0.png,a\nimages/1.png,b\n")
    assert counted(load(home)) == {"train/a": 1, "train/b": 1, "test/a": 1, "test/b": 1}


def test_tables_named_for_splits(lay: Lay) -> None:
    """They were said to label the same images."""
    home = lay("images x3")
    (home / "train.csv").write_text("image,label\n0.png,a\n1.png,b\n")
    (home / "test.csv").write_text("image,label\n2.png,b\n")
    assert counted(load(home)) == {"train/a": 1, "train/b": 1, "test/b": 1}
    (home / "test.csv").write_text("image,label\n1.png,b\n")
    with pytest.raises(DataError, match=r"has 'test.csv', 'train.csv', which label the same images"):
        load(home)


def test_files_that_should_be_images_are_skipped_first(lay: Lay) -> None:
    home = lay("a x1", "b x1", "README.md")
    (home / "b/lost.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert [Path(path).name for path, _ in load(home).skipped] == ["lost.png", "README.md"]


# --- tables


@pytest.mark.parametrize(("of_file", "of_cell"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_paths_in_another_normal_form(lay: Lay, of_file: str, of_cell: str) -> None:
    name = "caf\u00e9.png"
    home = lay(unicodedata.normalize(of_file, name), "1.png")
    (home / "t.csv").write_text(f"path,label\n{unicodedata.normalize(of_cell, name)},a\n1.png,b\n")
    assert counted(load(home / "t.csv")) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("table", "read"),
    [
        ("sep=;\npath;label\n0.png;a\n1.png;b\n", "a 1 b 1"),
        ("# made by hand\npath,label\n0.png,a\n1.png,b\n", "a 1 b 1"),
        ("0.png,a\n1.png,b\n", "a 1 b 1"),
        ("TRAIN,0.png,a\nTEST,1.png,b\n", "train/a 1 test/b 1"),
        ("filepaths,labels,data set\n0.png,a,train\n1.png,b,valid\n", "train/a 1 val/b 1"),
        ("path,label,is_train\n0.png,a,1\n1.png,b,0\n", "train/a 1 test/b 1"),
        ("image,level\n0,3\n1,5\n", "3 1 5 1"),
        ("path,a,b\n0.png,True,False\n1.png,False,True\n", "a 1 b 1"),
        ("path,label\n0.png,a\0\n1.png,b\n", r"row 2 of .* has a null character in its label, expected text"),
        ("image_id,class_id\n0,3\n1,5\n", "3 1 5 1"),
        ("path,class,class_id\n0.png,a,3\n1.png,b,5\n", "a 1 b 1"),
        ("path,label\n0.png,1\n1.png,1.0\n", "1 2"),
        ("path,label\n0.png,01\n1.png,1\n", "01 1 1 1"),
        ('path,label\n0.png,"pepper, red"\n1.png,"pepper, green"\n', "pepper,_red 1 pepper,_green 1"),
        ("path,label\nfile://{home}/0.png,a\n1.png,b\n", "a 1 b 1"),
        (
            "image,choice\nhttp://localhost:8080/data/upload/7/0.png,a\n/data/local-files/?d=x/1.png,b\n",
            "a 1 b 1",
        ),
        (
            "path,label\n0.png,a\n0.png,b\n",
            r"row 3 of .* gives '.*' the label 'b', and row 2 gives it 'a'",
        ),
        (
            "path,label\n0.png,a\n1.png,nan\n",
            r"row 3 of .* has no label, but 'nan' \(1 such rows\), expected one",
        ),
        ("path,label\nC:\\me\\0.png,a\n1.png,b\n", r"missing, .* relative to the table: there is '0.png'"),
        (
            "1,0.png,a\n2,1.png,b\n",
            r"row 1 of .* has the name of an image, '0.png', expected the names of the col",
        ),
        (
            ",".join("7" * 20) + "\n" + ",".join("8" * 20) + "\n",
            r"row 1 of .* has numbers only, expected the names",
        ),
    ],
)
def test_tables_of_more_makers(lay: Lay, table: str, read: str) -> None:
    home = lay("0.png", "1.png")
    (home / "t.csv").write_text(table.replace("{home}", str(home)))
    if not read[-1].isdigit():
        with pytest.raises((DataError, MissingDataError), match=read):
            load(home / "t.csv")
        return
    words = read.split()
    expected = {name.replace("_", " "): int(n) for name, n in zip(words[::2], words[1::2], strict=True)}
    assert counted(load(home / "t.csv")) == expected


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_tables_say_their_encoding(lay: Lay, encoding: str) -> None:
    home = lay("0.png", "1.png")
    (home / "t.csv").write_text("path,label\n0.png,\u03b1\n1.png,\u03b2\n", encoding=encoding)
    (home / "t.json").write_text('[{"path": "0.png", "label": "\u03b1"}]', encoding=encoding)
    assert load(home / "t.csv").classes == ("\u03b1", "\u03b2") and load(home / "t.json").classes == (
        "\u03b1",
    )


def test_a_class_that_may_be_a_missing_label_is_remarked(lay: Lay) -> None:
    home = lay("0.png", "1.png")
    (home / "t.csv").write_text("path,label\n0.png,None\n1.png,b\n")
    assert load(home / "t.csv").remarks == (
        "class 'None' may stand for a label that is missing in column 'label'",
    )


@pytest.mark.parametrize(
    "content",
    [
        {"0.png": "a", "1.png": "b"},
        {"path": ["0.png", "1.png"], "label": ["a", "b"]},
        {"path": {"0": "0.png", "1": "1.png"}, "label": {"0": "a", "1": "b"}},
        {"data": [{"path": "0.png", "label": "a"}, {"path": "1.png", "label": "b"}]},
    ],
)
def test_shapes_of_json(lay: Lay, content: object) -> None:
    home = lay("0.png", "1.png")
    (home / "t.json").write_text(json.dumps(content))
    assert counted(load(home / "t.json")) == {"a": 1, "b": 1}


def test_json_lines_in_a_json_file_and_a_line_separator_in_a_name(lay: Lay) -> None:
    home = lay("0.png", "1.png")
    rows = '{"path": "0.png", "label": "a\u2028b"}\n{"path": "1.png", "label": "c"}\n'
    for name in ("t.json", "t.jsonl"):
        (home / name).write_text(rows)
        assert load(home / name).labels.tolist() == ["a\u2028b", "c"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("null", "holds one value of type NoneType, expected a list of objects"),
        ("3", "holds one value of type int, expected a list of objects"),
        ('[{"path": "0.png", "label": "a", "label": "b"}]', "an object has 'label' more than once"),
        ('[{"path": "0.png", "Label": "a", "label": "b"}]', "has the column 'label' more than once"),
        (
            '[{"id": 1, "data": {}, "annotations": []}]',
            "holds tasks of Label Studio, .* export them as JSON-MIN",
        ),
    ],
)
def test_json_that_cannot_be_used(lay: Lay, text: str, sentence: str) -> None:
    (lay("0.png") / "t.json").write_text(text)
    with pytest.raises((DataError, BrokenDataError), match=sentence):
        load(lay() / "t.json")


def test_images_in_the_cells_of_a_parquet_table(lay: Lay, own_cache: Path) -> None:
    """Hugging Face's image column: bytes and path, with the names of the classes beside the schema."""
    arrow = pytest.importorskip("pyarrow", reason="needs headstart[tables]")
    from pyarrow import parquet

    home = lay("0.png", "1.png")
    cells = [{"bytes": (home / f"{n}.png").read_bytes(), "path": f"{n}.png"} for n in range(2)]
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = arrow.table({"image": [*cells, cells[0]], "label": [1, 0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(table, home / "t.parquet")
    data = load(home / "t.parquet")
    assert data.labels.tolist() == ["dog", "cat", "dog"]
    assert np.array_equal(data.images.image(1), load_pixels(home / "1.png"))
    assert data.images.paths is None and not list(own_cache.rglob("*.*"))
    assert load(home / "t.parquet").fingerprint == data.fingerprint
    parquet.write_table(
        arrow.table({"img": [one["bytes"] for one in cells], "label": ["a", "b"]}), home / "u.parquet"
    )
    assert counted(load(home / "u.parquet")) == {"a": 1, "b": 1}


def load_pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))[..., None]


def test_pixel_columns_in_another_order(tmp_path: Path) -> None:
    """Sorted by name, pixel10 stands before pixel2: the image was scrambled without a word."""
    names = sorted(f"pixel{number}" for number in range(64))
    values = [int(name.removeprefix("pixel")) for name in names]
    (tmp_path / "t.csv").write_text("digit," + ",".join(names) + "\n3," + ",".join(map(str, values)) + "\n")
    data = load(tmp_path / "t.csv")
    assert data.images.pixels is not None and data.images.pixels.ravel().tolist() == list(range(64))
    with pytest.raises(
        DataError, match=r"holds their pixels, expected the table itself; give '.*t.csv' instead"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("trainX", "trainY"), ("0", "1")),
        (("x", "t"), ("0", "1")),
        (("imgs", "lbls"), ("0", "1")),
        (("data", "target", "target_names"), ("cat", "dog")),
    ],
)
def test_names_of_arrays(tmp_path: Path, names: tuple[str, ...], classes: tuple[str, ...]) -> None:
    arrays = [np.arange(128, dtype=np.uint8).reshape(2, 8, 8), np.array([0.0, 1.0]), np.array(["cat", "dog"])]
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays, strict=False)))
    assert load(tmp_path / "a.npz").classes == classes


def test_arrays_without_images_or_without_labels(tmp_path: Path) -> None:
    pixels = np.arange(128, dtype=np.uint8).reshape(2, 8, 8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=[0, 1], x_val=pixels)
    assert load(tmp_path / "a.npz").remarks == (
        "'a.npz' has arrays without labels, which are not used: 'x_val'",
    )
    np.savez(tmp_path / "b.npz", images=pixels[:0], labels=np.zeros(0, int))
    with pytest.raises(DataError, match=r"b.npz' has no images, expected at least one"):
        load(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("t.xlsx", "it is a spreadsheet: save it as CSV"),
        ("t.npy", "without labels: write images and labels with numpy.savez"),
        ("t.txt", "if it is a table, rename it to .csv"),
        ("t.7z", "it is a 7-Zip archive, not an image: unpack it"),
    ],
)
def test_a_file_of_another_kind_gets_its_own_advice(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(DataError, match=rf"is no table, expected .*; .*{advice}"):
        load(tmp_path / name)


# --- archives


def packed(path: Path, home: Path) -> Path:
    with zipfile.ZipFile(path, "w") as box:
        for file in sorted(home.rglob("*.png")):
            box.write(file, file.relative_to(home.parent))
    return path


def test_an_archive_is_read_again_under_another_name(lay: Lay, tmp_path: Path) -> None:
    """Its files were looked for in a folder of the new name: FileNotFoundError."""
    archive = packed(tmp_path / "one.zip", lay("a x2", "b x2"))
    assert load(archive).name == "one"
    archive.rename(tmp_path / "two.ZIP")
    assert load(tmp_path / "two.ZIP").name == "two"


def test_an_archive_is_known_by_its_content(lay: Lay, tmp_path: Path) -> None:
    packed(tmp_path / "set.tar.gz", lay("a x2", "b x2"))
    assert counted(load(tmp_path / "set.tar.gz")) == {"a": 2, "b": 2}


def test_links_in_archives_are_counted_and_hard_links_are_files(lay: Lay, tmp_path: Path) -> None:
    home = lay("a x2", "b x2")
    os.link(home / "a/0.png", home / "b/same.png")
    (home / "a/link.png").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "set.tar", "w") as box:
        box.add(home, "set")
    for _ in range(2):  # also from the cache
        data = load(tmp_path / "set.tar")
        assert counted(data) == {"a": 2, "b": 3}
        assert [Path(path).name for path, _ in data.skipped] == ["link.png"]
    with pytest.raises(BrokenDataError, match=r"link.png' cannot be used \(it is a link in an archive"):
        load(tmp_path / "set.tar", strict=True)


@pytest.mark.parametrize("names", [("a", "a/0.png"), ("a/" + "x" * 300 + ".png",)])
def test_archives_of_names_that_cannot_be_files(tmp_path: Path, names: tuple[str, ...]) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as box:
        for name in names:
            box.writestr(name, b"x")
    with pytest.raises(
        BrokenDataError, match=r"^archive '.*set.zip' holds '.*', which cannot be a file here"
    ):
        load(tmp_path / "set.zip")


def test_messages_about_an_archive_name_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as box:
        box.writestr("a.zip", b"PK\x03\x04")
        box.writestr("b.txt", b"x")
    sentence = r"^folder '.*set.zip' has 0 images .*a.zip' is not used: it is a ZIP archive"
    with pytest.raises(DataError, match=sentence):
        load(tmp_path / "set.zip")
