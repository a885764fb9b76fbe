"""Reading datasets by name, from folders, tables and arrays; fetching; and every refusal."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import http.server
import os
import struct
import sys
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import ArrayImages, FileImages, catalog, load
from headstart.data.images.decode import fault_in
from headstart.data.readers import download as fetch_module
from headstart.data.readers.download import Remote, cache_folder, extract_archive, obtain
from headstart.errors import (
    BrokenDataError,
    DataError,
    FetchError,
    MissingDataError,
    MissingExtraError,
    UnknownClassError,
    UnknownDatasetError,
    UnknownSubsetError,
)
from headstart.system.drafts import CacheWarning

REAL = os.environ.get("HEADSTART_DATA")
needs_real_data = pytest.mark.skipif(REAL is None, reason="needs real data: set HEADSTART_DATA")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty data folder, and keep the cache away from the user's."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def picture(path: Path, value: int = 0, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def idx_set(folder: Path, stems: tuple[str, str], labels: list[int]) -> np.ndarray:
    """Write four IDX files, half of them packed; give the images of each split."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 5, 4), dtype=np.uint8)
    for stem in stems:
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.array(labels, np.uint8)))
    return images


# by name


def test_the_catalog_names_what_load_knows() -> None:
    names = "digits emnist-letters fashion-mnist greek greek-photos kmnist mnist"
    assert list(catalog()) == [*names.split(), "omniglot-greek", "omniglot-small", "usps"]
    assert all("\n" not in line and line for line in catalog().values())


def test_digits_need_no_files(home: Path) -> None:
    digits = load("digits")
    assert isinstance(digits.images, ArrayImages)
    assert digits.images.pixels.shape == (1797, 8, 8, 1)
    assert digits.images.pixels.max() == 255
    assert set(np.unique(digits.images.pixels)) == {round(v * 255 / 16) for v in range(17)}
    assert digits.classes == tuple("0123456789")
    assert digits.labels[:3].tolist() == ["0", "1", "2"]
    assert digits.splits is None


@pytest.mark.parametrize(
    ("name", "folder", "names"),
    [
        ("mnist", "MNIST/raw", ["7", "0"]),
        ("fashion-mnist", "FashionMNIST/raw", ["Sneaker", "T-shirt/top"]),
        ("kmnist", "KMNIST/raw", ["ya", "o"]),
    ],
)
def test_idx_sets_plain_and_packed(home: Path, name: str, folder: str, names: list[str]) -> None:
    images = idx_set(home / folder, ("train", "t10k"), [7, 0])
    data = load(name)
    assert isinstance(data.images, ArrayImages)
    assert np.array_equal(data.images.pixels[..., 0], np.concatenate([images, images]))
    assert data.labels.tolist() == names * 2
    assert data.splits is not None and data.splits.tolist() == ["train"] * 2 + ["test"] * 2
    assert len(data.classes) == 10
    test = load(name, split="test")
    assert test.fingerprint == data.split("test").fingerprint
    with pytest.raises(
        DataError, match=rf"^split 'val' is not in dataset '{name}', expected one of train, test"
    ):
        load(name, split="val")


def test_one_split_reads_its_own_files_only(home: Path) -> None:
    idx_set(home / "MNIST/raw", ("t10k",) * 1, [1, 2])  # type: ignore[arg-type]
    assert load("mnist", split="test").labels.tolist() == ["1", "2"]
    with pytest.raises(
        MissingDataError, match=r"^dataset 'mnist' is not on this machine, expected MNIST/raw/train-images"
    ):
        load("mnist", download=False)


def test_emnist_letters_stand_upright_and_count_from_one(home: Path) -> None:
    images = idx_set(home / "EMNIST/raw", ("emnist-letters-train", "emnist-letters-test"), [1, 26])
    data = load("emnist-letters", split="train")
    assert data.labels.tolist() == ["a", "z"]
    assert np.array_equal(data.images.pixels[0, ..., 0], images[0].T)  # type: ignore[attr-defined]
    (home / "EMNIST/raw/emnist-letters-train-labels-idx1-ubyte").write_bytes(idx(np.array([0, 5], np.uint8)))
    with pytest.raises(
        BrokenDataError, match=r"^label file '.*' has codes from -1 to 4 after the first, expected 0 to 25"
    ):
        load("emnist-letters", split="train")


def test_emnist_is_taken_out_of_its_archive(home: Path, tmp_path: Path) -> None:
    stems = ("emnist-letters-train", "emnist-letters-test")
    idx_set(tmp_path / "made", stems, [3, 1])
    (home / "EMNIST/raw").mkdir(parents=True)
    archive = home / "EMNIST/raw/gzip.zip"
    with zipfile.ZipFile(archive, "w") as box:
        for stem in stems:
            images = tmp_path / "made" / f"{stem}-images-idx3-ubyte.gz"
            labels = tmp_path / "made" / f"{stem}-labels-idx1-ubyte"
            box.write(images, f"gzip/{images.name}")
            box.writestr(f"gzip/{labels.name}.gz", gzip.compress(labels.read_bytes()))
    assert load("emnist-letters").labels.tolist() == ["c", "a"] * 2
    assert [path.name for path in archive.parent.iterdir()] == [
        "gzip.zip"
    ]  # nothing is written beside the data
    files = [path for path in (cache_folder() / "EMNIST/raw").iterdir() if path.suffix != ".md5"]
    assert len(files) == 4
    archive.unlink()
    assert len(load("emnist-letters")) == 4


def test_a_broken_archive(home: Path) -> None:
    (home / "EMNIST/raw").mkdir(parents=True)
    (home / "EMNIST/raw/gzip.zip").write_bytes(b"no zip")
    with pytest.raises(
        BrokenDataError,
        match=r"^archive '.*gzip.zip' cannot be unpacked \(File is not a zip file\), expected",
    ):
        load("emnist-letters")


def test_counts_and_sizes_are_checked(home: Path) -> None:
    idx_set(home / "MNIST/raw", ("train", "t10k"), [7, 0])
    labels = home / "MNIST/raw/train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.array([7, 0, 1], np.uint8)))
    with pytest.raises(
        BrokenDataError, match=r"labels-idx1-ubyte' has 3 labels \(11 bytes\), expected 2 \(10 bytes\) to m"
    ):
        load("mnist")
    labels.write_bytes(b"")
    with pytest.raises(BrokenDataError, match=r"labels-idx1-ubyte' is empty \(0 bytes\), expected"):
        load("mnist")


def usps_rows(first: int) -> list[tuple[int, np.ndarray]]:
    values = np.linspace(-1, 1, 256).round(4)
    return [(first, values), (first + 9, values[::-1])]


def test_usps_in_both_of_its_forms(home: Path) -> None:
    (home / "usps").mkdir()
    text = "".join(f"{label}.0000 {' '.join(map(str, row))} \n" for label, row in usps_rows(0))
    (home / "usps/zip.train.gz").write_bytes(gzip.compress(text.encode()))
    pairs = ((label, (f"{i}:{v}" for i, v in enumerate(row, start=1))) for label, row in usps_rows(1))
    svm = "".join(f"{label} {' '.join(cells)} \n" for label, cells in pairs)
    (home / "usps/usps.t.bz2").write_bytes(bz2.compress(svm.encode()))
    train, test = load("usps").split("train"), load("usps").split("test")
    assert train.labels.tolist() == test.labels.tolist() == ["0", "9"]
    assert train.images.fingerprint == test.images.fingerprint
    assert train.images.pixels.shape == (2, 16, 16, 1)  # type: ignore[attr-defined]
    assert train.images.pixels[0].ravel().tolist() == list(range(256))  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["", "1 0.5\n", "a b c\n", "12 " + "0 " * 255 + "-1\n"])
def test_usps_that_is_not(home: Path, text: str) -> None:
    (home / "usps").mkdir()
    (home / "usps/zip.test.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(
        BrokenDataError, match=r"^(USPS|label) file '.*zip.test.gz' (cannot be read \(|has codes from 12)"
    ):
        load("usps", split="test")


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        (
            "mnits",
            UnknownDatasetError,
            r"^dataset 'mnits' is unknown, expected a name in the catalog, nearest are mnist, kmni",
        ),
        ("mnits:odd", UnknownDatasetError, r"^dataset 'mnits' is unknown"),
        (
            "digits:od",
            UnknownSubsetError,
            r"^subset 'od' is unknown, expected odd, even, parity, 0-4, a,b,c, turned or a class",
        ),
        ("digits:1,x", UnknownClassError, r"^subset '1,x' names class 'x', expected classes of the dataset"),
        (
            "no/such",
            MissingDataError,
            r"^path 'no/such' does not exist, expected a folder or a table; correct the path$",
        ),
        ("none.csv", MissingDataError, r"^path 'none.csv' does not exist"),
        (
            __file__,
            DataError,
            r"^file '.*\.py' is no table, expected a folder of class folders, a table \(.csv, .tsv",
        ),
    ],
)
def test_names_that_lead_nowhere(name: str, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        load(name)


def test_a_data_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_DATA", "/no/such/folder")
    with pytest.raises(
        MissingDataError, match=r"^HEADSTART_DATA is '/no/such/folder', expected an existing folder; cr"
    ):
        load("mnist")


# from disk


def test_a_flat_folder(tmp_path: Path) -> None:
    for name in (
        "b10/1.png",
        "b9/2.PNG",
        "b9/deep/er/1.bmp",
        "b9/.hidden.png",
        ".git/x.png",
        "b10/notes.txt",
    ):
        picture(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    data = load(tmp_path)
    assert data.name == tmp_path.name
    assert data.classes == ("b9", "b10")
    assert data.labels.tolist() == ["b10", "b9", "b9"]
    assert data.splits is None
    assert data.skipped == (
        (str(tmp_path / "b10/notes.txt"), "it is a text file, not an image; leave it out"),
    )
    assert isinstance(data.images, FileImages)
    assert [path.name for path in data.images.paths] == ["1.png", "2.PNG", "1.bmp"]
    assert load(f"{tmp_path}:b9").labels.tolist() == ["b9", "b9"]


def test_a_folder_with_splits(tmp_path: Path) -> None:
    for i, name in enumerate(("train/a/1.png", "train/b/1.png", "validation/a/1.png", "test/b/1.png")):
        picture(tmp_path / "set" / name, i)
    data = load(tmp_path / "set")
    assert data.splits is not None
    assert sorted(zip(data.splits, data.labels, strict=True)) == [
        ("test", "b"), ("train", "a"), ("train", "b"), ("val", "a")
    ]  # fmt: skip
    assert load(tmp_path / "set", split="valid").labels.tolist() == ["a"]


def test_the_same_images_elsewhere_have_the_same_fingerprint(tmp_path: Path) -> None:
    for top in ("one", "two"):
        for i, name in enumerate(("a/1.png", "b/1.png")):
            picture(tmp_path / top / name, i)
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    picture(tmp_path / "two/b/1.png", 9)
    assert load(tmp_path / "two").fingerprint != one.fingerprint


def test_a_path_with_a_colon_is_a_path(tmp_path: Path) -> None:
    picture(tmp_path / "x:odd/a/1.png")
    assert load(tmp_path / "x:odd").name == "x:odd"


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        picture(tmp_path / name / "1.png")
    assert load(tmp_path).classes == ("plane", "train")


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.png")
    (tmp_path / "a/loop").symlink_to(tmp_path / "a")
    assert len(load(tmp_path)) == 1


def test_broken_files_are_listed_or_refused(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "stray.png", "a/3.heic"):
        if name.endswith("heic"):
            (tmp_path / name).write_bytes(b"x")
        else:
            picture(tmp_path / name)
    Image.effect_noise((40, 40), 50).save(tmp_path / "a/2.png")
    whole = (tmp_path / "a/2.png").read_bytes()
    (tmp_path / "a/2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b/0.jpg").write_bytes(b"")
    data = load(tmp_path)
    assert len(data) == 2
    reasons = {Path(path).name: reason for path, reason in data.skipped}
    assert set(reasons) == {"stray.png", "2.png", "0.jpg", "3.heic"}
    assert reasons["stray.png"] == "it is not in a class folder, so it has no label"
    assert reasons["0.jpg"] == "it is empty"
    assert reasons["3.heic"] == "it is a text file, not an image; leave it out"
    assert "truncated" in reasons["2.png"]
    with pytest.raises(
        BrokenDataError,
        match=r"^image '.*2.png' cannot be used \(.*\), 4 of 6 such, expected complete images",
    ):
        load(tmp_path, strict=True)


def test_a_cut_jpeg_is_broken(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "1.jpg")
    data = (tmp_path / "1.jpg").read_bytes()
    assert fault_in(data) is None
    assert "truncated" in str(fault_in(data[: len(data) * 9 // 10]))


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = picture(tmp_path / "long.png", size=(66_000, 1)).read_bytes()
    assert fault_in(long) == "it has a side of 66000 pixels, more than 65535"
    data = picture(tmp_path / "1.png", size=(100, 100)).read_bytes()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # over twice the limit: Pillow itself refuses
    assert fault_in(data) == "it has too many pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)  # Pillow only warns, which may be an error
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fault_in(data) == "it has 100 x 100 pixels, more than 9000"


def test_postscript_is_never_interpreted() -> None:
    assert fault_in(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n") == (
        "it is a PostScript file, not an image; convert it to PNG or JPEG"
    )


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            [],
            r"^folder '.*' has 0 images and no class folders, expected one folder per class; sort the images into",
        ),
        (
            ["1.png", "2.png"],
            r"^folder '.*' has 2 images and no class folders, expected one folder per class",
        ),
        (
            ["a/bad.png", "b/x.txt"],
            r"^dataset 'set' has no image that can be read \('.*': .*\), expected at least one",
        ),
        (
            ["train/a/1.png", "more/a/1.png"],
            r"^folder '.*' has 'more' next to 'train', expected folders for splits only",
        ),
        (
            ["val/a/1.png", "valid/a/1.png"],
            r"^folder '.*' has 'val', 'valid', expected one folder per split; merge",
        ),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, files: list[str], sentence: str) -> None:
    (tmp_path / "set").mkdir()
    for name in files:
        if "bad" in name or name.endswith("txt"):
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).write_bytes(b"no picture")
        else:
            picture(tmp_path / "set" / name)
    with pytest.raises(DataError, match=sentence):
        load(tmp_path / "set")


TABLE = "path,label,split,writer,note\n1.png,a,train,w1,x\nsub/2.png,b,valid,w2,y\n"


def test_a_table(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    picture(tmp_path / "sub/2.png")
    (tmp_path / "pets.csv").write_text(
        "\ufeff" + TABLE.replace("path,label", "Path, Label"), encoding="utf-8"
    )
    data = load(tmp_path / "pets.csv")
    assert (data.name, data.labels.tolist()) == ("pets", ["a", "b"])
    assert data.groups is not None and data.groups.tolist() == ["w1", "w2"]
    assert data.splits is not None and data.splits.tolist() == ["train", "val"]
    (tmp_path / "plain.csv").write_text(f"path,label\n{tmp_path / '1.png'},7\n")
    plain = load(tmp_path / "plain.csv")
    assert (plain.classes, plain.groups, plain.splits) == (("7",), None, None)


def test_a_parquet_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs headstart[tables]")
    from pyarrow import parquet

    picture(tmp_path / "1.png")
    parquet.write_table(
        arrow.table({"path": ["1.png"], "label": [3], "group": ["g"]}), tmp_path / "t.parquet"
    )
    data = load(tmp_path / "t.parquet")
    assert (data.labels.tolist(), data.groups.tolist()) == (["3"], ["g"])  # type: ignore[union-attr]
    parquet.write_table(arrow.table({"path": ["1.png"] * 2, "label": ["a", None]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"^row 2 of '.*t.parquet' has no label"):
        load(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(
        BrokenDataError, match=r"^table '.*t.parquet' cannot be read \(.*\), expected a whole Parquet file"
    ):
        load(tmp_path / "t.parquet")
    for module in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(
        MissingExtraError, match=r"table 't.parquet': expected the package .* 'headstart\[tables\]'$"
    ):
        load(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        (
            "",
            DataError,
            r"^table '.*' has no rows, expected at least one; add path and label of an image$",
        ),
        (
            "path,size\n1.png,a\n",
            DataError,
            r"has the columns 'path', 'size', expected path and label; add or rename lab",
        ),
        (
            "path,label\n",
            DataError,
            r"^table '.*' has no rows, expected at least one; add path and label of an image$",
        ),
        (
            "path,label\n1.png,a,b\n",
            DataError,
            r"^row 2 of '.*' has 3 cells, expected 2 as in the header; quote cells",
        ),
        (
            "path,label\n1.png,\n",
            DataError,
            r"^row 2 of '.*' has no label \(1 such rows\), expected one in every row; fill",
        ),
        ("path,label,group\n1.png,a,\n", DataError, r"^row 2 of '.*' has no group"),
        (
            "path,label,split\n1.png,a,tset\n",
            DataError,
            r"^row 2 of '.*' has split 'tset', expected train, val or test; re",
        ),
        ("\n\npath,label\n\n1.png,a\n\n\n1.png,\n", DataError, r"^row 8 of '.*' has no label"),
        ("path,label\n\n1.png,a,b\n", DataError, r"^row 3 of '.*' has 3 cells"),
        ("path,label,split\n\n1.png,a,tset\n", DataError, r"^row 3 of '.*' has split 'tset'"),
        ('path,label\n1.png,"a\nb"\n\n1.png,\n', DataError, r"^row 5 of '.*' has no label"),
        ("path,label\r\n\r\n1.png,\r\n", DataError, r"^row 3 of '.*' has no label"),
        (
            "path,label\n1.png,a\nx.png,a\ny.png,a\n",
            MissingDataError,
            r"x.png' does not exist, 2 of 3 missing, expected every",
        ),
        ("path,label\nbad.png,b\n", DataError, r"^dataset 't' has no image that can be read \('.*bad.png': "),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, kind: type[Exception], sentence: str) -> None:
    picture(tmp_path / "1.png")
    (tmp_path / "bad.png").write_bytes(b"bad")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(kind, match=sentence) as caught:
        load(tmp_path / "t.csv")
    assert type(caught.value) is kind


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("path,label\n1.png,\xe9\n".encode("latin-1"))
    with pytest.raises(
        BrokenDataError, match=r"^table '.*' cannot be read \(.*utf-8.*\), expected CSV in UTF-8 with a he"
    ):
        load(tmp_path / "t.csv")


# over the network


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serve files without a word on stderr."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """Serve a folder on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield tmp_path / "served", f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_verified(home: Path, server: tuple[Path, str]) -> None:
    folder, url = server
    (folder / "x.gz").write_bytes(b"content")
    remote = Remote("X/raw/x.gz", (url + "gone.gz", url + "x.gz"), hashlib.md5(b"content").hexdigest())
    path = obtain(remote, "x", download=True)
    assert path == cache_folder() / "X/raw/x.gz"
    assert path.read_bytes() == b"content"
    assert fetch_module.find(["X/raw/x.gz"]) == path


def test_a_file_damaged_in_the_cache_is_fetched_again(home: Path, server: tuple[Path, str]) -> None:
    folder, url = server
    (folder / "x.gz").write_bytes(b"content")
    remote = Remote("X/raw/x.gz", (url + "x.gz",), hashlib.md5(b"content").hexdigest())
    path = obtain(remote, "x", download=True)
    assert fetch_module.find([remote.place], remote) == path
    path.write_bytes(b"contenu")
    sentence = rf"^data file '{path}' is damaged \(its MD5 differs\): it is fetched again$"
    with pytest.warns(CacheWarning, match=sentence):
        assert fetch_module.find([remote.place], remote) is None
    assert obtain(remote, "x", download=True).read_bytes() == b"content"


def test_a_file_extracted_into_the_cache_is_checked(home: Path) -> None:
    with zipfile.ZipFile(home / "box.zip", "w") as box:
        box.writestr("in/x", b"content")
    path = extract_archive(home / "box.zip", "in/x", "X/x")
    assert fetch_module.find(["X/x"]) == path
    path.write_bytes(b"contenu")
    with pytest.warns(CacheWarning, match="is damaged"):
        assert fetch_module.find(["X/x"]) is None
    assert extract_archive(home / "box.zip", "in/x", "X/x").read_bytes() == b"content"
    (cache_folder() / "X/mine").write_bytes(b"put there by the user")
    assert fetch_module.find(["X/mine"]) is not None


def test_a_file_that_came_altered(home: Path, server: tuple[Path, str]) -> None:
    folder, url = server
    (folder / "x.gz").write_bytes(b"other")
    with pytest.raises(
        FetchError,
        match=r"^dataset 'x' could not be fetched \(its MD5 differs\), expected X/x.gz; "
        rf"set HEADSTART_DATA to a folder that holds it, or download {url}x.gz to .*/cache/data/X/x.gz$",
    ):
        obtain(Remote("X/x.gz", (url + "x.gz",), hashlib.md5(b"content").hexdigest()), "x", download=True)
    assert not (cache_folder() / "X/x.gz").exists()


def test_a_network_that_is_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    remote = Remote("X/x.gz", ("http://127.0.0.1:9/x.gz",), "0" * 32)
    with pytest.raises(
        FetchError, match=r"^dataset 'x' could not be fetched \(ConnectionError\), expected X/x.gz; set HE"
    ):
        obtain(remote, "x", download=True)


# real data


@needs_real_data
def test_mnist_as_published() -> None:
    data = load("mnist")
    assert len(data.split("train")) == 60_000 and len(data.split("test")) == 10_000
    assert list(data.split("test").counts().values()) == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert data.labels[:5].tolist() == ["5", "0", "4", "1", "9"]
    assert len(load("mnist:odd", split="test")) == 5_074


@needs_real_data
def test_usps_as_published() -> None:
    data = load("usps")
    assert len(data.split("train")) == 7_291 and len(data.split("test")) == 2_007


@needs_real_data
def test_folders_and_tables_as_published() -> None:
    root = Path(str(REAL))
    bees = load(root / "hymenoptera")
    assert list(bees.split("train").counts().values()) == [123, 121]
    assert list(bees.split("val").counts().values()) == [70, 83]
    assert load(root / "greek/train").counts() == {"alpha": 9, "beta": 9, "gamma": 9}
    photos = load(root / "greek/photos.csv")
    assert len(photos) == 91 and photos.groups is not None and len(set(photos.groups)) == 10
