"""Layouts of folders that real users have: read as their makers mean them, or refused with the right advice."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset
from headstart.data.readers import archives
from headstart.data.readers.load import load
from headstart.errors import BrokenDataError, DataError, FetchError, MissingDataError

Lay = Callable[..., Path]


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """Write a dataset: ``lay("train/cat 3", "readme.txt", table="path,label\\n")``, images all different."""

    def write(*places: str, **tables: str) -> Path:
        number = 0
        for place in places:
            path, _, count = place.partition(" ")
            if not count:
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_text("some words")
            for one in range(int(count or 0)):
                number += 1
                file = tmp_path / f"{path}/{one}.png" if "%" not in path else tmp_path / (path % one)
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(number).integers(0, 256, (8, 8)).astype(np.uint8)
                Image.fromarray(pixels).save(file)
        for name, text in tables.items():
            file = tmp_path / name.replace("__", "/").replace("_csv", ".csv")
            file.write_text(text)
        return tmp_path

    return write


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test alone."""
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
        (
            "Training/cat 3|Training/dog 2|Testing/cat 1|Testing/dog 1",
            "train/cat 3 train/dog 2 test/cat 1 test/dog 1",
            0,
        ),
        ("train_set/cat 2|train_set/dog 2|val_images/cat 1", "train/cat 2 train/dog 2 val/cat 1", 0),
        ("trainset/cat 2|trainset/dog 2|testset/dog 1", "train/cat 2 train/dog 2 test/dog 1", 0),
        (
            "seg_train/seg_train/cat 2|seg_train/seg_train/dog 2|seg_test/seg_test/cat 1|seg_pred/seg_pred 4",
            "train/cat 2 train/dog 2 test/cat 1",
            4,
        ),
        ("photos/cat 2|photos/dog 2", "cat 2 dog 2", 0),
        ("a/photos/cat 2|a/photos/dog 2|a/LICENSE", "cat 2 dog 2", 1),
        (
            "chest_xray/train/ill 2|chest_xray/train/well 2|chest_xray/test/ill 1",
            "train/ill 2 train/well 2 test/ill 1",
            0,
        ),
        ("cat 2|dog 2|test 5", "cat 2 dog 2", 5),
        ("train/cat 2|train/dog 2|test 5", "train/cat 2 train/dog 2", 5),
        ("train/cat 2|train/dog 2|docs/a.txt", "train/cat 2 train/dog 2", 1),
        ("train 2|car 2|plane 2", "train 2 car 2 plane 2", 0),
        ("cat 2|dog 2|cat/@eaDir 2|$RECYCLE.BIN 3|lost+found 1", "cat 2 dog 2", 0),
        ("cat/train 2|cat/test 1|dog/train 2|dog/test 1", "train/cat 2 test/cat 1 train/dog 2 test/dog 1", 0),
        ("ill/images 2|ill/masks 2|well/images 2|well/masks 2", "ill 2 well 2", 4),
        ("ill/x%d.png 2|ill/x%d_mask.png 2|well/y%d.png 2|well/y%d_mask.png 2", "ill 2 well 2", 4),
        ("Images/cat 2|Images/dog 2|Annotation/cat/0|Annotation/dog/0", "cat 2 dog 2", 2),
        ("cat/2019 2|cat/2020 2|dog/2019 1", "cat 4 dog 1", 0),
        ("learning 2|playing 2", "learning 2 playing 2", 0),
        ("training 2|match 2", "training 2 match 2", 0),
        ("cat 2|dog 2|README.md|3 0", "cat 2 dog 2", 1),
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
        (
            "train 4|test 2",
            r"has images directly in 'test', 'train' and no class folders there, expected one folder",
        ),
        (
            "train 4|test 2|cat 2",
            r"has images in 'test', 'train' next to 'cat', expected class folders under every",
        ),
        (
            "train/cat 2|train/dog 2|extra/cat 2|extra/dog 2",
            r"has 'extra' next to 'train', expected folders for splits",
        ),
        ("train/cat 2|training/dog 2", r"has 'train', 'training', expected one folder per split"),
        (
            "fold1/cat 2|fold1/dog 2|fold2/cat 2|fold2/dog 2",
            r"has 'fold1', 'fold2', expected folders of classes or",
        ),
        (
            "images 3|masks 3",
            r"has 3 images and no class folders, expected one folder per class; .* or write a table",
        ),
        (
            "cat/train 2|cat/test 1|dog 2",
            r"has splits in some class folders and none in 'dog', expected the same",
        ),
    ],
)
def test_layouts_with_more_than_one_reading_are_refused(lay: Lay, places: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(lay(*places.split("|")))


# --- tables beside images


def test_tables_of_one_hot_classes_in_each_split(lay: Lay) -> None:
    """Roboflow's export for classification."""
    table = "filename, cat, dog\n0.png, 1, 0\n1.png, 0, 1\n"
    data = load(
        lay("train 2", "valid 2", "README.dataset.txt", train___classes_csv=table, valid___classes_csv=table)
    )
    assert counted(data) == {"train/cat": 1, "train/dog": 1, "val/cat": 1, "val/dog": 1}
    with pytest.raises(
        DataError, match=r"row 2 of '.*_classes.csv' has the classes 'cat\|dog', expected one class"
    ):
        load(
            lay("train 2", train___classes_csv="filename,cat,dog\n0.png,1,1\n1.png,0,1\n")
            / "train/_classes.csv"
        )


def test_a_table_of_file_names_in_each_split(lay: Lay) -> None:
    """The image folder of Hugging Face: metadata.csv with file_name."""
    table = "file_name,label\n0.png,cat\n1.png,dog\n"
    data = load(lay("train 3", "test 2", train__metadata_csv=table, test__metadata_csv=table))
    assert counted(data) == {"train/cat": 1, "train/dog": 1, "test/cat": 1, "test/dog": 1}
    assert [(Path(path).name, reason) for path, reason in data.skipped] == [
        ("2.png", "'metadata.csv' does not name it")
    ]


def test_a_table_of_ids_beside_the_folder_of_training_images(lay: Lay) -> None:
    """Kaggle: train.csv names the training images without their extension, a submission names the others."""
    home = lay(
        "train/a%d.png 3",
        "test/b%d.png 2",
        train_csv="id,breed\na0,pug\na1,boxer\na2,pug\n",
        sample_submission_csv="id,breed\nb0,pug\nb1,pug\n",
    )
    data = load(home)
    assert counted(data) == {"pug": 2, "boxer": 1}
    assert sorted(Path(path).name for path, _ in data.skipped) == [
        "b0.png",
        "b1.png",
        "sample_submission.csv",
    ]
    assert data.remarks[0] == f"labels are those of {str(home / 'train.csv')!r}"


def test_a_table_beside_a_folder_of_images(lay: Lay) -> None:
    data = load(lay("images/p%d.png 3", train_csv="image_id,ill,well\np0,1,0\np1,0,1\np2,0,1\n"))
    assert counted(data) == {"ill": 1, "well": 2}


def test_a_table_that_contradicts_class_folders(lay: Lay) -> None:
    """HAM10000: two folders of images are parts, and the table has the labels."""
    rows = "image_id,dx\na0,nv\na1,mel\nb0,mel\nb1,nv\n"
    home = lay("images_part_1/a%d.png 2", "images_part_2/b%d.png 2", metadata_csv=rows)
    with pytest.raises(
        DataError, match=r"has class folders and the table 'metadata.csv' with other labels, expected"
    ):
        load(home)
    assert counted(load(home / "metadata.csv")) == {"nv": 2, "mel": 2}


def test_a_loose_image_does_not_make_a_table_win_over_class_folders(lay: Lay) -> None:
    rows = "file,label\na0.png,nv\na1.png,mel\nb0.png,mel\nb1.png,nv\n"
    home = lay("one/a%d.png 2", "two/b%d.png 2", ". 1", metadata_csv=rows)
    with pytest.raises(
        DataError, match=r"has class folders and the table 'metadata.csv' with other labels, expected"
    ):
        load(home)


def test_a_table_next_to_images_that_cannot_be_used_says_why(lay: Lay) -> None:
    home = lay("train 2", "test 2", train_csv="id,breed\n0,pug\n1,\n")
    with pytest.raises(
        DataError, match=r"no class folders there \(its table cannot be used: row 3 .* has no breed"
    ):
        load(home)


def test_a_table_that_agrees_with_class_folders(lay: Lay) -> None:
    home = lay(
        "cat/c%d.png 2", "dog/d%d.png 2", labels_csv="file,label\nc0.png,Cat\nc1.png,Cat\nd0.png,Dog\n"
    )
    assert counted(load(home)) == {"cat": 2, "dog": 2}


def test_two_tables_of_the_same_images(lay: Lay) -> None:
    rows = "path,label\n0.png,a\n1.png,b\n"
    with pytest.raises(
        DataError, match=r"has 'one.csv', 'two.csv', which label the same images, expected one table"
    ):
        load(lay(". 2", one_csv=rows, two_csv=rows))


# --- files


def test_links_are_followed_once_and_dangling_ones_counted(lay: Lay, tmp_path: Path) -> None:
    home = lay("store/more 3", "set/cat 2", "set/dog 2") / "set"
    (home / "dog/more").symlink_to(tmp_path / "store/more")
    (home / "dog/round").symlink_to(home / "dog")
    (home / "dog/gone.png").symlink_to("/nowhere/gone.png")
    data = load(home)
    assert counted(data) == {"cat": 2, "dog": 5}
    assert data.skipped == (
        (
            str(home / "dog/gone.png"),
            "it is a link to '/nowhere/gone.png', which does not exist; restore the file, or delete the link",
        ),
    )
    with pytest.raises(
        BrokenDataError, match=r"gone.png' cannot be used \(it is a link to .*\), 1 of 8 such"
    ):
        load(home, strict=True)


def test_images_are_known_by_their_content(lay: Lay) -> None:
    home = lay("cat 2", "dog 2")
    (home / "cat/0.png").rename(home / "cat/0")
    (home / "cat/1.png").rename(home / "cat/1.jpg_medium")
    (home / "dog/notes.txt").write_text("no image")
    data = load(home, strict=True)
    assert counted(data) == {"cat": 2, "dog": 2} and len(data.skipped) == 1


def test_a_class_of_files_that_are_no_images_says_what_they_are(lay: Lay) -> None:
    home = lay("cat 2")
    (home / "dog").mkdir()
    (home / "dog/0.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    data = load(home)
    assert data.counts() == {"cat": 2, "dog": 0}
    with pytest.raises(
        DataError, match=r"class 'dog' .* has 0 training images \(.* is not used: it is a Git LFS"
    ):
        checked(data)


def test_a_pipe_is_skipped_and_never_opened(lay: Lay) -> None:
    home = lay("cat 2", "dog 2")
    os.mkfifo(home / "cat/pipe.png")
    assert load(home).skipped == (
        (str(home / "cat/pipe.png"), "it is a named pipe, not a file; leave it out"),
    )


def test_names_are_compared_in_nfc(lay: Lay) -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    data = load(lay(f"train/{composed} 2", "train/tea 2", f"test/{decomposed} 1", "test/tea 1"))
    assert data.classes == (composed, "tea") and counted(data)[f"test/{composed}"] == 1


def test_a_class_folder_that_is_not_utf8(lay: Lay) -> None:
    home = lay("cat 2")
    os.mkdir(os.fsencode(home) + b"/caf\xe9")
    with pytest.raises(
        DataError, match=r"^class folder .* has a name that is not UTF-8, expected .*; rename the"
    ):
        load(home)


# --- tables alone


@pytest.mark.parametrize(
    ("table", "read"),
    [
        ("path;label\nim/0.png;a\nim/1.png;b\n", "a 1 b 1"),
        ("path\tlabel\nim/0.png\ta\nim/1.png\tb\n", "a 1 b 1"),
        ("path,label\nim\\0.png,a\nim\\1.png,b\n", "a 1 b 1"),
        ("file_name,class\nim/0.png,a\nim/1.png,b\n", "a 1 b 1"),
        ("Image,Category\n0.png,a\n1.png,b\n", "a 1 b 1"),
        ("image_id,label\n0,a\n1,b\n", "a 1 b 1"),
        ("path,label,is_valid\nim/0.png,a,False\nim/1.png,a,True\n", "train/a 1 val/a 1"),
        ("path,label,subset\nim/0.png,a,Training\nim/1.png,a,Testing\n", "train/a 1 test/a 1"),
        ("path,label,fold\nim/0.png,a,0\nim/1.png,b,1\n", "a 1 b 1"),
        ("image,choice\n/data/upload/1/0.png,a\n1.png,b\n", "a 1 b 1"),
        ("path,label\nim/0.png,hot dog\nim/1.png,dog\n", "hot_dog 1 dog 1"),
        (
            "path,label\nim/0.png,a|b\nim/1.png,a\n",
            r"row 2 .* has the label 'a\|b', expected one class per image",
        ),
        (
            "path,tags\nim/0.png,a b\nim/1.png,a\n",
            r"row 2 .* has the tags 'a b', expected one class per image",
        ),
        (
            'path,label\nim/0.png,"{""choices"":[""a""]}"\nim/1.png,b\n',
            r"row 2 .* expected one class per image",
        ),
        (
            "path,label,label\nim/0.png,a,b\n",
            r"has the column 'label' more than once, expected each name once",
        ),
        (
            "path,class,category\nim/0.png,a,b\n",
            r"has the columns 'class', 'category', expected one label; rename",
        ),
        (
            "path,label\nim/0,a\nim/1,b\n",
            r"im/0' does not exist, 2 of 2 missing, .*; add .png: there is '0.png'",
        ),
        ("path,label\nim/0.pgn,a\nim/1.png,b\n", r"1 of 2 missing, .* there is '0.png'"),
        (
            "path,label\nhttps://x.org/a.png,a\n",
            r"row 2 of .* has the path 'https://x.org/a.png', expected a file",
        ),
    ],
)
def test_tables_of_many_makers(lay: Lay, table: str, read: str) -> None:
    home = lay("im 2", t_csv=table)
    if not read[-1].isdigit():
        with pytest.raises((DataError, MissingDataError), match=read):
            load(home / "t.csv")
        return
    words = read.split()
    expected = {name.replace("_", " "): int(n) for name, n in zip(words[::2], words[1::2], strict=True)}
    assert counted(load(home / "t.csv")) == expected


def test_a_data_uri_is_one_short_sentence(lay: Lay) -> None:
    home = lay("im 2", t_csv=f'path,label\n"data:image/png;base64,{"A" * 9000}",a\n')
    with pytest.raises(DataError, match=r"has the path 'data:image/png.*expected a file") as caught:
        load(home / "t.csv")
    assert len(str(caught.value)) < 400


def test_a_column_that_is_no_split_is_remarked(lay: Lay) -> None:
    data = load(lay("im 2", t_csv="path,label,fold,patient_id\nim/0.png,a,0,p\nim/1.png,b,1,q\n") / "t.csv")
    assert data.splits is None and data.groups is None
    assert ["'fold'" in data.remarks[0], "'patient_id'" in data.remarks[1]] == [True, True]


def test_the_table_of_a_csv_of_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 784))
    rows = "\n".join(f"{label}," + ",".join(map(str, row)) for label, row in zip("507", pixels, strict=True))
    (tmp_path / "train.csv").write_text(
        "label," + ",".join(f"pixel{i}" for i in range(784)) + "\n" + rows + "\n"
    )
    data = load(tmp_path / "train.csv")
    assert data.labels.tolist() == ["5", "0", "7"] and data.images.image_shape == (28, 28, 1)
    assert data.images.pixels is not None and np.array_equal(data.images.pixels[2].ravel(), pixels[2])
    (tmp_path / "faces.csv").write_text(f"emotion,pixels,Usage\n1,{' '.join(map(str, pixels[0]))},Training\n")
    faces = load(tmp_path / "faces.csv")
    assert faces.splits is not None and faces.splits.tolist() == ["train"] and faces.labels.tolist() == ["1"]
    (tmp_path / "test.csv").write_text(
        ",".join(f"pixel{i}" for i in range(784)) + "\n" + ",".join(["9"] * 784) + "\n"
    )
    with pytest.raises(DataError, match=r"has pixels and the columns nothing else, expected a column label"):
        load(tmp_path / "test.csv")


# --- arrays and archives


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("x_train", "y_train", "x_test", "y_test"), ["train"] * 4 + ["test"] * 2),
        (("train_images", "train_labels", "test_images", "test_labels"), ["train"] * 4 + ["test"] * 2),
        (("images", "labels"), None),
        (("X", "y"), None),
        (("arr_0", "arr_1"), None),
    ],
)
def test_numpy_archives(tmp_path: Path, names: tuple[str, ...], splits: list[str] | None) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for images, labels, count in zip(names[::2], names[1::2], (4, 2), strict=False):
        arrays[images] = rng.integers(0, 256, (count, 8, 8)).astype(np.uint8)
        arrays[labels] = np.arange(count).reshape(-1, 1) % 2
    np.savez(tmp_path / "set.npz", **arrays)
    data = load(tmp_path / "set.npz")
    assert data.classes == ("0", "1") and data.images.image_shape == (8, 8, 1)
    assert (None if data.splits is None else data.splits.tolist()) == splits


def test_numpy_archives_that_cannot_be_used(tmp_path: Path) -> None:
    np.savez(tmp_path / "floats.npz", images=np.zeros((2, 8, 8)), labels=[0, 1])
    with pytest.raises(
        DataError, match=r"array 'images' of '.*' has dtype float64, expected uint8 from 0 to 255"
    ):
        load(tmp_path / "floats.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match=r"holds 'weights', expected images and labels, or x_train"):
        load(tmp_path / "other.npz")
    np.savez(tmp_path / "objects.npz", images=np.array([{}], object), labels=[0])
    with pytest.raises(
        BrokenDataError, match=r"expected an .npz of images and labels without Python objects"
    ):
        load(tmp_path / "objects.npz")


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.bz2"])
def test_an_archive_is_read_like_its_folder(lay: Lay, own_cache: Path, ending: str) -> None:
    home = lay("photos/train/cat 2", "photos/train/dog 2", "photos/test/cat 1", "__MACOSX/._0.png")
    form = {"tar.gz": "gztar", "tar.bz2": "bztar"}.get(ending, ending)
    archive = Path(shutil.make_archive(str(home / "set"), form, home, "photos"))
    data = load(archive)
    assert counted(data) == {"train/cat": 2, "train/dog": 2, "test/cat": 1} and data.name == "set"
    assert data.fingerprint == load(home / "photos").fingerprint
    assert data.images.paths is not None and own_cache in data.images.paths[0].parents
    assert load(f"{archive}:dog").classes == ("dog",)
    left = [path.name for path in (own_cache / "archives").iterdir()]
    assert len(left) == 1 and not left[0].startswith(".")


def test_an_archive_of_a_table(lay: Lay, own_cache: Path) -> None:
    home = lay("set/im 2", set__labels_csv="path,label\nim/0.png,a\nim/1.png,b\n")
    assert counted(load(shutil.make_archive(str(home / "set"), "zip", home / "set"))) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    "name", ["../out.png", "/tmp/out.png", "a/../../out.png", "C:/out.png", "..\\out.png"]
)
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, own_cache: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as box:
        box.writestr(name, b"x")
    with pytest.raises(
        DataError, match=r"^archive '.*bad.zip' holds '.*', expected names below its own folder"
    ):
        load(tmp_path / "bad.zip")
    assert list((own_cache / "archives").iterdir()) == []


def test_archives_that_cannot_be_unpacked(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04" + bytes(99))
    (tmp_path / "torn.tar.gz").write_bytes(b"\x1f\x8b" + bytes(99))
    for name in ("torn.zip", "torn.tar.gz"):
        with pytest.raises(
            BrokenDataError, match=rf"^archive '.*{name}' cannot be unpacked \(.*expected a whole"
        ):
            load(tmp_path / name)
    assert list((own_cache / "archives").iterdir()) == []


def test_an_archive_of_far_more_than_its_size(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ALLOWANCE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("cat/0.bmp", bytes(5_000_000))
    with pytest.raises(
        DataError, match=r"bomb.zip' holds far more than its size, expected at most 100 times"
    ):
        load(tmp_path / "bomb.zip")


def test_links_in_a_tar_are_left_out(tmp_path: Path, lay: Lay, own_cache: Path) -> None:
    home = lay("cat 2", "dog 2")
    (home / "cat/link.png").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "set.tar", "w") as box:
        box.add(home / "cat", "cat")
        box.add(home / "dog", "dog")
    assert counted(load(tmp_path / "set.tar")) == {"cat": 2, "dog": 2}


# --- addresses


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server of a folder, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_an_archive_on_the_network_is_fetched_once_and_verified(
    lay: Lay, own_cache: Path, served: tuple[str, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    address, asked = served
    home = lay("set/cat 2", "set/dog 2")
    archive = Path(shutil.make_archive(str(home / "set"), "zip", home / "set"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    for _ in range(2):
        assert counted(load(f"{address}/set.zip#sha256={digest}")) == {"cat": 2, "dog": 2}
    assert asked == ["/set.zip"] and capfd.readouterr() == ("", "")
    with pytest.raises(
        FetchError, match=r"^archive '.*' could not be fetched \(its SHA-256 differs\), expected"
    ):
        load(f"{address}/set.zip?other#sha256={digest[::-1]}")
    with pytest.raises(
        FetchError, match=r"^archive '.*none.zip' could not be fetched \(HTTPError\), expected"
    ):
        load(f"{address}/none.zip")
    with pytest.raises(
        DataError, match=r"^address '.*/set' names no archive, expected one that ends in .zip"
    ):
        load(f"{address}/set")


def test_without_a_network_it_is_one_sentence(own_cache: Path) -> None:
    with pytest.raises(
        FetchError, match=r"^archive 'http://127.0.0.1:9/set.zip' could not be fetched \(ConnectionE"
    ):
        load("http://127.0.0.1:9/set.zip")
