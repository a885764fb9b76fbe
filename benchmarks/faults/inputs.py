"""Wrong inputs over all commands: each must end in one sentence that says what it is, what is expected, what to do.

python benchmarks/faults/inputs.py [--only WORD]

Builds every input in a temporary folder, runs the real command on it, and prints a table: the command, its status
and its sentence. A fault is a traceback, a second line, a status of 0, a sentence without *expected*, or a command
that is not done within two minutes. Status 1 if there is any fault.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee")
LIMIT_S = 120
Make = Callable[[Path], object]


def image(path: Path, seed: int, *, side_px: int = 24, mode: str = "L") -> Path:
    """A disc for even seeds, a cross for odd ones, on noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side_px, :side_px] - side_px / 2 + rng.uniform(-2, 2, (2, 1, 1))
    ink = x**2 + y**2 < (side_px / 4) ** 2 if seed % 2 == 0 else (abs(x) < 2) | (abs(y) < 2)
    pixels = np.where(ink, 30, 220) + rng.integers(-20, 20, (side_px, side_px))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(path)
    return path


def classes(home: Path, *names: str, n_images: int = 6, first: int = 0) -> Path:
    """A folder with a class folder for each name."""
    for code, name in enumerate(names):
        for number in range(n_images):
            image(home / name / f"{number}.png", first + 2 * number + code + 100 * (code // 2))
    return home


def flat(home: Path, n_images: int = 6) -> Path:
    """A folder of images without classes."""
    for number in range(n_images):
        image(home / f"{number}.png", number)
    return home


def table(text: str, name: str = "t.csv") -> Make:
    """A table beside six images."""

    def make(home: Path) -> None:
        flat(home / "im")
        (home / name).write_text(text, encoding="utf-8")

    return make


def rows(label: Callable[[int], str] = lambda number: CLASSES[number % 2], path: str = "im/{}.png") -> str:
    return "\n".join(f"{path.format(number)},{label(number)}" for number in range(6)) + "\n"


def spoiled(name: str, change: Callable[[bytes], bytes]) -> Make:
    """A model folder of which one file is changed."""

    def make(home: Path) -> None:
        shutil.copytree(MODEL[0], home / "m")
        (home / "m" / name).write_bytes(change((home / "m" / name).read_bytes()))

    return make


def manifest(**changes: object) -> Make:
    """A model folder whose manifest has other values."""

    def change(content: bytes) -> bytes:
        return json.dumps({**json.loads(content), **changes}).encode()

    return spoiled("manifest.json", change)


def written(name: str, content: bytes) -> Make:
    def make(home: Path) -> None:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)

    return make


def both(*makes: Make) -> Make:
    return lambda home: [make(home) for make in makes]


def archive(members: dict[str, bytes]) -> Make:
    def make(home: Path) -> None:
        with zipfile.ZipFile(home / "a.zip", "w") as box:
            for name, content in members.items():
                box.writestr(name, content)

    return make


MODEL: list[Path] = []
PNG = b"\x89PNG\r\n\x1a\n"
TRANSFER = "transfer pixels {} -o out"

# what is wrong, how it is made, and the command: {} is the input
DATA: list[tuple[str, Make, str]] = [
    ("no such folder", lambda home: None, "{}/none"),
    ("empty folder", lambda home: (home / "d").mkdir(), "{}/d"),
    ("folder of text files", written("d/ant/a.txt", b"text"), "{}/d"),
    ("images without class folders", lambda home: flat(home / "d"), "{}/d"),
    ("one class", lambda home: classes(home / "d", "ant"), "{}/d"),
    ("one class in a wrapper", lambda home: classes(home / "d/photos", "ant"), "{}/d"),
    ("one image per class", lambda home: classes(home / "d", *CLASSES, n_images=1), "{}/d"),
    ("empty class folder", lambda home: (classes(home / "d", *CLASSES), (home / "d/cat").mkdir()), "{}/d"),
    (
        "class of broken images",
        both(lambda home: classes(home / "d", *CLASSES), written("d/cat/0.png", b"x")),
        "{}/d",
    ),
    (
        "class of Git LFS pointers",
        both(
            lambda home: classes(home / "d", "ant"),
            written("d/bee/0.png", b"version https://git-lfs.github.com/spec/v1\n"),
        ),
        "{}/d",
    ),
    (
        "class of HTML pages",
        both(lambda home: classes(home / "d", "ant"), written("d/bee/0.jpg", b"<!doctype html>")),
        "{}/d",
    ),
    (
        "class of dangling links",
        lambda home: (
            classes(home / "d", "ant"),
            (home / "d/bee").mkdir(),
            (home / "d/bee/0.png").symlink_to("/none"),
        ),
        "{}/d",
    ),
    (
        "class of pipes",
        lambda home: (classes(home / "d", "ant"), (home / "d/bee").mkdir(), os.mkfifo(home / "d/bee/0.png")),
        "{}/d",
    ),
    ("flat train and test", lambda home: (flat(home / "d/train"), flat(home / "d/test")), "{}/d"),
    ("flat Training and Testing", lambda home: (flat(home / "d/Training"), flat(home / "d/Testing")), "{}/d"),
    (
        "splits beside classes",
        lambda home: (classes(home / "d/train", *CLASSES), classes(home / "d/more", *CLASSES)),
        "{}/d",
    ),
    (
        "train twice",
        lambda home: (classes(home / "d/train", *CLASSES), classes(home / "d/training", *CLASSES)),
        "{}/d",
    ),
    (
        "folds",
        lambda home: (classes(home / "d/fold1", *CLASSES), classes(home / "d/fold2", *CLASSES)),
        "{}/d",
    ),
    ("images and masks", lambda home: (flat(home / "d/images"), flat(home / "d/masks")), "{}/d"),
    (
        "splits in one class only",
        lambda home: (flat(home / "d/ant/train"), flat(home / "d/ant/test"), flat(home / "d/bee")),
        "{}/d",
    ),
    (
        "class only in test",
        lambda home: (
            classes(home / "d/train", *CLASSES),
            classes(home / "d/test", *CLASSES, "cat", first=40),
        ),
        "{}/d",
    ),
    (
        "class named in two cases",
        lambda home: (
            classes(home / "d/train", "Ant", "bee"),
            classes(home / "d/test", "ant", "bee", first=40),
        ),
        "{}/d",
    ),
    (
        "image in two splits",
        lambda home: (classes(home / "d/train", *CLASSES), classes(home / "d/test", *CLASSES)),
        "{}/d",
    ),
    (
        "class folder not in UTF-8",
        lambda home: (classes(home / "d", *CLASSES), os.mkdir(os.fsencode(home) + b"/d/caf\xe9")),
        "{}/d",
    ),
    (
        "class folders named for splits",
        lambda home: (classes(home / "d/pets_train", *CLASSES), classes(home / "d/pets_test", *CLASSES)),
        "{}/d",
    ),
    (
        "sources above the classes",
        lambda home: (classes(home / "d/set1", *CLASSES), classes(home / "d/set2", *CLASSES, first=40)),
        "{}/d",
    ),
    (
        "a copy of the dataset in itself",
        lambda home: (classes(home / "d", *CLASSES), classes(home / "d/pets", *CLASSES)),
        "{}/d",
    ),
    (
        "images and labels of detection",
        lambda home: (flat(home / "d/train/images"), flat(home / "d/val/images")),
        "{}/d",
    ),
    ("a class called test", lambda home: classes(home / "d", "control", "test"), "{}/d"),
    ("folder of archives", written("d/train.zip", b"PK\x03\x04"), "{}/d"),
    (
        "folder of a table of pixels",
        written("d/a.csv", b"label," + b",".join(b"p%d" % i for i in range(64))),
        "{}/d",
    ),
    ("class named none of these", lambda home: classes(home / "d", "ant", "none of these"), "{}/d"),
    ("subset that is no class", lambda home: classes(home / "d", *CLASSES), "{}/d:cat"),
    ("subset of one class", lambda home: classes(home / "d", *CLASSES), "{}/d:ant"),
    ("unknown dataset", lambda home: None, "mnits"),
    ("subset of numbers of names", lambda home: classes(home / "d", *CLASSES), "{}/d:odd"),
    ("an image instead of a dataset", lambda home: image(home / "x.png", 0), "{}/x.png"),
    ("a text file instead of a dataset", written("x.txt", b"text"), "{}/x.txt"),
    ("a model instead of a dataset", lambda home: shutil.copytree(MODEL[0], home / "m"), "{}/m"),
    ("empty table", table(""), "{}/t.csv"),
    ("header only", table("path,label\n"), "{}/t.csv"),
    ("no label column", table("path,size\nim/0.png,3\n"), "{}/t.csv"),
    ("no path column", table("label\nant\n"), "{}/t.csv"),
    ("column twice", table("path,label,label\nim/0.png,a,b\n"), "{}/t.csv"),
    ("two label columns", table("path,class,category\nim/0.png,a,b\n"), "{}/t.csv"),
    ("empty label", table("path,label\n" + rows() + "im/0.png,\n"), "{}/t.csv"),
    ("too many cells", table("path,label\nim/0.png,a,b\n"), "{}/t.csv"),
    ("unknown split", table("path,label,split\nim/0.png,a,tset\n"), "{}/t.csv"),
    ("several labels with a bar", table("path,label\nim/0.png,ant|bee\nim/1.png,ant\n"), "{}/t.csv"),
    ("several labels with a comma", table('path,label\nim/0.png,"ant, bee"\nim/1.png,ant\n'), "{}/t.csv"),
    ("labels in JSON", table('path,label\nim/0.png,"{""choices"": [""ant""]}"\nim/1.png,bee\n'), "{}/t.csv"),
    ("one-hot with two ones", table("path,ant,bee\nim/0.png,1,1\nim/1.png,0,1\n"), "{}/t.csv"),
    ("one-hot without a one", table("path,ant,bee\nim/0.png,0,0\nim/1.png,0,1\n"), "{}/t.csv"),
    ("missing files", table("path,label\nim/7.png,ant\n" + rows()), "{}/t.csv"),
    ("paths without extension", table("path,label\n" + rows(path="im/{}")), "{}/t.csv"),
    ("data address", table("path,label\ndata:image/png;base64" + "A" * 5000 + ",ant\n"), "{}/t.csv"),
    ("web address", table("path,label\nhttps://example.org/a.png,ant\n"), "{}/t.csv"),
    ("table in Latin-1", written("t.csv", "path,label\n1.png,\xe9\n".encode("latin-1")), "{}/t.csv"),
    ("binary table", written("t.csv", bytes(range(256)) * 9), "{}/t.csv"),
    ("torn Parquet", written("t.parquet", b"PAR1" + bytes(99)), "{}/t.parquet"),
    ("torn JSON", written("t.json", b'[{"path": "a'), "{}/t.json"),
    ("COCO", written("t.json", b'{"images": [], "annotations": [], "categories": []}'), "{}/t.json"),
    ("JSON lines of numbers", written("t.jsonl", b"1\n2\n"), "{}/t.jsonl"),
    ("an image with two labels", table("path,label\n" + rows() + "im/0.png,cat\n"), "{}/t.csv"),
    ("label nan", table("path,label\n" + rows() + "im/0.png,nan\n"), "{}/t.csv"),
    ("null character in a label", table("path,label\n" + rows() + "im/0.png,a\0\n"), "{}/t.csv"),
    ("paths of another machine", table("path,label\n" + rows(path="C:\\me\\{}.png")), "{}/t.csv"),
    ("three columns without a header", table("1,im/0.png,a\n2,im/1.png,b\n"), "{}/t.csv"),
    ("JSON of null", written("t.json", b"null"), "{}/t.json"),
    ("JSON of a number", written("t.json", b"3"), "{}/t.json"),
    (
        "JSON with a name twice",
        written("t.json", b'[{"path": "a", "label": "b", "label": "c"}]'),
        "{}/t.json",
    ),
    ("tasks of Label Studio", written("t.json", b'[{"id": 1, "data": {}, "annotations": []}]'), "{}/t.json"),
    ("a spreadsheet", written("t.xlsx", b"PK\x03\x04"), "{}/t.xlsx"),
    ("one array without labels", lambda home: np.save(home / "a.npy", np.zeros((4, 8, 8))), "{}/a.npy"),
    ("one class in a table", table("path,label\n" + rows(lambda _: "ant")), "{}/t.csv"),
    ("every label once", table("path,label\n" + rows(str)), "{}/t.csv"),
    (
        "pixels without labels",
        table(",".join(f"pixel{i}" for i in range(64)) + "\n" + ",".join(["9"] * 64) + "\n"),
        "{}/t.csv",
    ),
    (
        "pixels above 255",
        table("label," + ",".join(f"pixel{i}" for i in range(64)) + "\n1," + ",".join(["900"] * 64) + "\n"),
        "{}/t.csv",
    ),
    (
        "pixels of no square",
        table("label," + ",".join(f"pixel{i}" for i in range(65)) + "\n1," + ",".join(["9"] * 65) + "\n"),
        "{}/t.csv",
    ),
    (
        "arrays of floats",
        lambda home: np.savez(home / "a.npz", images=np.zeros((4, 8, 8)), labels=[0, 1, 0, 1]),
        "{}/a.npz",
    ),
    (
        "arrays without labels",
        lambda home: np.savez(home / "a.npz", images=np.zeros((4, 8, 8), np.uint8)),
        "{}/a.npz",
    ),
    (
        "arrays of two lengths",
        lambda home: np.savez(home / "a.npz", images=np.zeros((4, 8, 8), np.uint8), labels=[0]),
        "{}/a.npz",
    ),
    (
        "pickled arrays",
        lambda home: np.savez(home / "a.npz", images=np.array([{}], object), labels=[0]),
        "{}/a.npz",
    ),
    (
        "no arrays at all",
        lambda home: np.savez(home / "a.npz", images=np.zeros((0, 8, 8), np.uint8), labels=np.zeros(0, int)),
        "{}/a.npz",
    ),
    (
        "pixels without a header",
        table("\n".join(",".join(["7"] * 65) for _ in range(3)) + "\n"),
        "{}/t.csv",
    ),
    ("archive of a file that is also a folder", archive({"a": b"x", "a/x.png": b"x"}), "{}/a.zip"),
    ("archive of a name that is too long", archive({"x" * 300 + ".png": b"x"}), "{}/a.zip"),
    ("archive of archives", archive({"train.zip": b"PK", "test.zip": b"PK"}), "{}/a.zip"),
    ("torn arrays", written("a.npz", b"PK\x03\x04"), "{}/a.npz"),
    ("torn archive", written("a.zip", b"PK\x03\x04" + bytes(50)), "{}/a.zip"),
    ("archive that leaves its folder", archive({"../x.png": b"x"}), "{}/a.zip"),
    ("archive of text", archive({"a.txt": b"x"}), "{}/a.zip"),
    ("empty archive", archive({}), "{}/a.zip"),
    ("address without an answer", lambda home: None, "http://127.0.0.1:9/a.zip"),
    ("address of no archive", lambda home: None, "http://127.0.0.1:9/photos"),
    ("address with a wrong hash", lambda home: None, "http://127.0.0.1:9/a.zip#sha256=12"),
]

COMMANDS: list[tuple[str, Make, str]] = [
    ("unknown source", lambda home: classes(home / "d", *CLASSES), "transfer resnet81 {}/d -o out"),
    ("source without timm:", lambda home: classes(home / "d", *CLASSES), "transfer resnet50 {}/d -o out"),
    ("source and data swapped", lambda home: classes(home / "d", *CLASSES), "transfer {}/d drawings -o out"),
    ("unknown random network", lambda home: classes(home / "d", *CLASSES), "transfer random:cmm {}/d -o out"),
    ("a folder as source", lambda home: classes(home / "d", *CLASSES), "transfer {}/d {}/d -o out"),
    ("unknown head", lambda home: classes(home / "d", *CLASSES), "transfer pixels {}/d -o out --head knn"),
    (
        "unknown layer",
        lambda home: classes(home / "d", *CLASSES),
        "transfer drawings {}/d -o out --layer fc7",
    ),
    (
        "unknown pooling",
        lambda home: classes(home / "d", *CLASSES),
        "transfer pixels {}/d -o out --pooling mean",
    ),
    (
        "unknown policy",
        lambda home: classes(home / "d", *CLASSES),
        "transfer drawings {}/d -o out --policy fit",
    ),
    (
        "unknown augmentation",
        lambda home: classes(home / "d", *CLASSES),
        "transfer pixels {}/d -o out --augment spin=2",
    ),
    (
        "copies without augmentation",
        lambda home: classes(home / "d", *CLASSES),
        "transfer pixels {}/d -o out --copies 2",
    ),
    (
        "hold-out of all",
        lambda home: classes(home / "d", *CLASSES),
        "transfer pixels {}/d -o out --holdout 1.5",
    ),
    (
        "hold-out of a set with a test split",
        lambda home: (classes(home / "d/train", *CLASSES), classes(home / "d/test", *CLASSES, first=40)),
        "transfer pixels {}/d -o out --holdout 0.2",
    ),
    (
        "output is a file",
        both(lambda home: classes(home / "d", *CLASSES), written("o", b"x")),
        "transfer pixels {}/d -o {}/o",
    ),
    (
        "output holds other files",
        both(lambda home: classes(home / "d", *CLASSES), written("o/x.txt", b"x")),
        "transfer pixels {}/d -o {}/o",
    ),
    (
        "output below a file",
        both(lambda home: classes(home / "d", *CLASSES), written("o", b"x")),
        "transfer pixels {}/d -o {}/o/m",
    ),
    (
        "size for a source without one",
        lambda home: classes(home / "d", *CLASSES),
        "transfer pixels {}/d -o out --size 64",
    ),
    (
        "strict with a broken file",
        both(lambda home: classes(home / "d", *CLASSES), written("d/ant/x.png", b"x")),
        "transfer pixels {}/d -o out --strict",
    ),
    (
        "layer and tap",
        lambda home: classes(home / "d", *CLASSES),
        "transfer drawings {}/d -o out --layer a --tap b",
    ),
    (
        "name of two lines",
        lambda home: classes(home / "d", *CLASSES),
        "transfer pixels {}/d -o out --name a\nb",
    ),
    (
        "unknown strategy",
        lambda home: classes(home / "d", *CLASSES),
        "study pixels {}/d -o out --strategies probe,magic",
    ),
    (
        "unknown control",
        lambda home: classes(home / "d", *CLASSES),
        "study pixels {}/d -o out --controls chance",
    ),
    (
        "more labels than images",
        lambda home: classes(home / "d", *CLASSES),
        "study pixels {}/d -o out --labels 500",
    ),
    ("no labels", lambda home: classes(home / "d", *CLASSES), "study pixels {}/d -o out --labels 0"),
    (
        "unknown protocol",
        lambda home: classes(home / "d", *CLASSES),
        "study pixels {}/d -o out --protocol loo",
    ),
    (
        "groups that are not there",
        lambda home: classes(home / "d", *CLASSES),
        "study pixels {}/d -o out --protocol grouped",
    ),
    (
        "test set of other classes",
        lambda home: (classes(home / "d", *CLASSES), classes(home / "e", "x", "y", first=40)),
        "study pixels {}/d -o out --test {}/e",
    ),
    (
        "test set that was learned",
        lambda home: classes(home / "d", *CLASSES),
        "study pixels {}/d -o out --test {}/d",
    ),
    ("budget of nothing", lambda home: classes(home / "d", *CLASSES), "tune pixels {}/d -o out --budget 0s"),
    (
        "budget that is no time",
        lambda home: classes(home / "d", *CLASSES),
        "tune pixels {}/d -o out --budget soon",
    ),
    (
        "tune of an unknown head",
        lambda home: classes(home / "d", *CLASSES),
        "tune pixels {}/d -o out --heads tree",
    ),
    (
        "train of an unknown network",
        lambda home: classes(home / "d", *CLASSES),
        "train {}/d -o out --network resnet",
    ),
    (
        "train of an unknown engine",
        lambda home: classes(home / "d", *CLASSES),
        "train {}/d -o out --engine jax",
    ),
    ("train for no epochs", lambda home: classes(home / "d", *CLASSES), "train {}/d -o out --epochs 0"),
    (
        "train at a negative rate",
        lambda home: classes(home / "d", *CLASSES),
        "train {}/d -o out --learning-rate -1",
    ),
    (
        "train at no number",
        lambda home: classes(home / "d", *CLASSES),
        "train {}/d -o out --learning-rate fast",
    ),
    (
        "train with a batch of nothing",
        lambda home: classes(home / "d", *CLASSES),
        "train {}/d -o out --batch-size 0",
    ),
    ("unknown recipe", lambda home: None, "run odd-to-evn"),
    ("recipe of other data", lambda home: classes(home / "d", *CLASSES), "run parity --data {}/d -o out"),
    ("recipe file that is no TOML", written("r.toml", b"= ="), "run {}/r.toml"),
    ("recipe file without a recipe", written("r.toml", b"title = 'x'"), "run {}/r.toml"),
    ("recipe show of none", lambda home: None, "recipes show none"),
    ("source show of none", lambda home: None, "sources show none"),
    ("evaluate no model", lambda home: classes(home / "d", *CLASSES), "evaluate {}/m {}/d"),
    (
        "evaluate swapped",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), classes(home / "d", *CLASSES)),
        "evaluate {}/d {}/m",
    ),
    (
        "evaluate other classes",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), classes(home / "d", "x", "y")),
        "evaluate {}/m {}/d",
    ),
    (
        "evaluate a split that is not there",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), classes(home / "d", *CLASSES)),
        "evaluate {}/m {}/d --split test",
    ),
    ("predict nothing", lambda home: shutil.copytree(MODEL[0], home / "m"), "predict {}/m {}/none.png"),
    (
        "predict an empty folder",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), (home / "e").mkdir()),
        "predict {}/m {}/e",
    ),
    (
        "predict a glob of nothing",
        lambda home: shutil.copytree(MODEL[0], home / "m"),
        "predict {}/m {}/*.jpg",
    ),
    (
        "predict an empty file",
        both(lambda home: shutil.copytree(MODEL[0], home / "m"), written("x.png", b"")),
        "predict {}/m {}/x.png",
    ),
    (
        "predict a torn image",
        both(lambda home: shutil.copytree(MODEL[0], home / "m"), written("x.png", PNG + bytes(20))),
        "predict {}/m {}/x.png",
    ),
    (
        "predict a text",
        both(lambda home: shutil.copytree(MODEL[0], home / "m"), written("x.jpg", b"text")),
        "predict {}/m {}/x.jpg",
    ),
    (
        "predict a PDF",
        both(lambda home: shutil.copytree(MODEL[0], home / "m"), written("x.png", b"%PDF-1.7")),
        "predict {}/m {}/x.png",
    ),
    (
        "predict a pipe",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), os.mkfifo(home / "x.png")),
        "predict {}/m {}/x.png",
    ),
    (
        "predict a sparse file",
        lambda home: (
            shutil.copytree(MODEL[0], home / "m"),
            os.truncate(written("x.png", b"x")(home) or home / "x.png", 2**35),
        ),
        "predict {}/m {}/x.png",
    ),
    ("predict a device", lambda home: shutil.copytree(MODEL[0], home / "m"), "predict {}/m /dev/zero"),
    (
        "predict to the name of an image",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), image(home / "x.png", 0)),
        "predict {}/m {}/x.png --csv {}/x.png",
    ),
    (
        "predict to a folder",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), image(home / "x.png", 0)),
        "predict {}/m {}/x.png --csv {}",
    ),
    (
        "predict swapped",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), image(home / "x.png", 0)),
        "predict {}/x.png {}/m",
    ),
    (
        "model without its graph",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), (home / "m/model.onnx").unlink()),
        "predict {}/m {}/m",
    ),
    ("model with a torn graph", spoiled("model.onnx", lambda content: content[:-9]), "predict {}/m {}/m"),
    ("model with another graph", spoiled("model.onnx", lambda content: content + b"x"), "predict {}/m {}/m"),
    ("model with torn weights", spoiled("weights.safetensors", lambda content: content[:99]), "inspect {}/m"),
    ("model with a torn manifest", spoiled("manifest.json", lambda content: content[:50]), "inspect {}/m"),
    ("manifest of one class", manifest(classes=["ant"]), "inspect {}/m"),
    ("manifest of a class twice", manifest(classes=["ant", "ant"]), "inspect {}/m"),
    ("manifest of another format", manifest(format=99), "inspect {}/m"),
    ("manifest without files", manifest(files={}), "inspect {}/m"),
    ("inspect nothing", lambda home: None, "inspect {}/none"),
    (
        "export to an unknown target",
        lambda home: shutil.copytree(MODEL[0], home / "m"),
        "export {}/m --to tflite -o {}/e",
    ),
    (
        "export over other files",
        both(lambda home: shutil.copytree(MODEL[0], home / "m"), written("e/x.txt", b"x")),
        "export {}/m --to folder -o {}/e",
    ),
    ("serve no model", lambda home: None, "serve {}/m"),
    (
        "serve on a wrong port",
        lambda home: shutil.copytree(MODEL[0], home / "m"),
        "serve {}/m --port 99999999",
    ),
    (
        "unknown runtime",
        lambda home: (shutil.copytree(MODEL[0], home / "m"), image(home / "x.png", 0)),
        "predict {}/m {}/x.png --runtime tensorrt",
    ),
]

CASES = [(what, make, TRANSFER.format(data)) for what, make, data in DATA] + COMMANDS


def run(words: str, home: Path, cache: Path) -> tuple[int, str, str]:
    """Status, stdout and stderr of a command in a folder of its own."""
    environment = {**os.environ, "HEADSTART_CACHE": str(cache), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [
        sys.executable,
        "-m",
        "headstart",
        *(word.replace("{}", str(home)) for word in words.split(" ")),
    ]
    (home / "desk").mkdir()
    try:
        done = subprocess.run(
            command, cwd=home / "desk", env=environment, capture_output=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"not done after {LIMIT_S} s"
    out, err = (text.decode("utf-8", "backslashreplace") for text in (done.stdout, done.stderr))
    return done.returncode, out, err


def fault_of(status: int, out: str, err: str) -> str:
    """What is wrong with an answer; nothing for a sentence, or for a usage error of an option's value."""
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith("headstart: warning:")]
    if "Traceback" in err or status not in (1, 2):
        return f"status {status}"
    if status == 2:
        return "" if "Error" in err or "Usage" in err else "no usage error"
    sentences = [line for line in lines if line.startswith("headstart: error: ")]
    if len(sentences) != 1:
        return f"{len(sentences)} sentences"
    others = [line for line in lines if not line.startswith("headstart: ")]
    if others:
        return f"another line: {others[0]}"
    return "" if "expected" in sentences[0] else "no 'expected'"


def main() -> int:
    """Run the cases and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--first", type=int, default=None, help="as many cases at most")
    asked = parser.parse_args()
    faults = 0
    with TemporaryDirectory() as folder:
        root = Path(folder)
        cache = root / "cache"
        classes(root / "good/d", *CLASSES, n_images=20)
        status, _, err = run("transfer pixels {}/d -o {}/m --head ridge", root / "good", cache)
        assert status == 0, err
        MODEL.append(root / "good/m")
        cases = [case for case in CASES if asked.only in case[0]][: asked.first]
        for number, (what, make, words) in enumerate(cases):
            home = root / f"{number:03}"
            home.mkdir()
            make(home)
            status, out, err = run(words, home, cache)
            fault = fault_of(status, out, err)
            faults += bool(fault)
            sentence = next(
                (line for line in err.splitlines() if "error" in line.lower()), err.strip()[-300:]
            )
            shown = words.replace("\n", "\\n").replace("{}", "DIR")
            print(f"{what} | headstart {shown} | {status} | {sentence.replace(str(home), 'DIR')}", flush=True)
            if fault:
                print(
                    f"  FAULT: {fault}\n"
                    + "\n".join(f"  | {line}" for line in (out + err).splitlines()[-12:])
                )
            shutil.rmtree(home, ignore_errors=True)
    print(f"{len(cases)} inputs, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
