"""The datasets with a name: where each comes from, how it is read, and what its classes are called."""

from __future__ import annotations

import bz2
import gzip
import io
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.readers.download import Remote, extract_archive, find, obtain
from headstart.data.readers.folders import read_folder
from headstart.data.readers.idx import check_pair, parse_idx
from headstart.data.readers.omniglot import read_omniglot, read_omniglot_greek
from headstart.data.readers.tables import read_table
from headstart.data.stores import ArrayImages
from headstart.errors import BrokenDataError, MissingDataError
from headstart.records import Images

__all__ = ["KNOWN", "Known"]

_DIGITS = tuple(string.digits)
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_EMNIST_ZIP = Remote(
    "EMNIST/raw/gzip.zip",
    ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
    "58c8d27c78d21e728a6bc7b3cc06412e",
)
_USPS_URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/"
_USPS = {
    "train": Remote("USPS/usps.bz2", (_USPS_URL + "usps.bz2",), "ec16c51db3855ca6c91edd34d0e9b197"),
    "test": Remote("USPS/usps.t.bz2", (_USPS_URL + "usps.t.bz2",), "8ea070ee2aca1ac39742fdd1ef5ed118"),
}
_USPS_PX = 16

Part = tuple[Images, NDArray[np.intp]]


@dataclass(frozen=True)
class Known:
    """A named dataset: one line about it, and how to read it.

    ``read(name, splits, download)`` reads these splits, and uses the network only if ``download``.
    """

    title: str
    read: Callable[[str, Sequence[str], bool], Dataset]


@dataclass(frozen=True)
class _IdxFamily:
    """Four IDX files, as MNIST was published: images and labels, train and test."""

    folder: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    md5s: dict[str, str]
    stems: tuple[str, str] = ("train", "t10k")
    first_label: int = 0
    transposed: bool = False

    def read(self, name: str, splits: Sequence[str], download: bool) -> Dataset:
        return _joined(name, self.classes, splits, [self._part(name, split, download) for split in splits])

    def _part(self, name: str, split: str, download: bool) -> Part:
        stem = self.stems[0] if split == "train" else self.stems[1]
        paths = [
            self._path(name, f"{stem}-{end}", download) for end in ("images-idx3-ubyte", "labels-idx1-ubyte")
        ]
        images = parse_idx(paths[0].read_bytes(), str(paths[0]), 3)
        labels = parse_idx(paths[1].read_bytes(), str(paths[1]), 1)
        check_pair(images, labels, (str(paths[0]), str(paths[1])))
        if self.transposed:
            images = images.transpose(0, 2, 1)  # (n, w, h) -> (n, h, w)
        return images, _checked_codes(labels.astype(np.intp) - self.first_label, self.classes, str(paths[1]))

    def _path(self, name: str, file: str, download: bool) -> Path:
        place = f"{self.folder}/{file}"
        if not self.md5s:
            return find([place, place + ".gz"]) or _from_emnist_zip(name, file, download)
        urls = tuple(f"{mirror}{file}.gz" for mirror in self.mirrors)
        remote = Remote(place + ".gz", urls, self.md5s[file.removesuffix("-ubyte")])
        return find([place, place + ".gz"], remote) or obtain(remote, name, download=download)


def _from_emnist_zip(name: str, file: str, download: bool) -> Path:
    """Extract one file from the 535 MB archive of all EMNIST datasets."""
    archive = find([_EMNIST_ZIP.place], _EMNIST_ZIP) or obtain(_EMNIST_ZIP, name, download=download)
    return extract_archive(archive, f"gzip/{file}.gz", f"EMNIST/raw/{file}.gz")


def _checked_codes(codes: NDArray[np.intp], classes: Sequence[str], place: str) -> NDArray[np.intp]:
    if len(codes) and (codes.min() < 0 or codes.max() >= len(classes)):
        raise BrokenDataError(
            f"label file {place!r} has codes from {codes.min()} to {codes.max()} after the first, "
            f"expected 0 to {len(classes) - 1}; fetch it again"
        )
    return codes


def _joined(name: str, classes: tuple[str, ...], splits: Sequence[str], parts: Sequence[Part]) -> Dataset:
    sizes = [len(images) for images, _ in parts]
    images = parts[0][0] if len(parts) == 1 else np.concatenate([images for images, _ in parts])
    codes = np.concatenate([codes for _, codes in parts])
    return Dataset(
        name, ArrayImages(images), np.array(classes)[codes], classes, splits=np.repeat(splits, sizes)
    )


def _read_digits(name: str, splits: Sequence[str], download: bool) -> Dataset:
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = np.rint(bundled.images * 255 / 16).astype(np.uint8)
    return Dataset(name, ArrayImages(images), bundled.target.astype(np.str_), _DIGITS)


def _read_usps(name: str, splits: Sequence[str], download: bool) -> Dataset:
    return _joined(name, _DIGITS, splits, [_usps_part(name, split, download) for split in splits])


def _usps_part(name: str, split: str, download: bool) -> Part:
    svm = _USPS[split]
    file = Path(svm.place).name
    places = [f"usps/zip.{split}.gz", f"USPS/zip.{split}.gz", f"usps/{file}", f"USPS/{file}"]
    path = find(places, svm) or obtain(svm, name, download=download)
    try:
        values, codes = _usps_text(path) if path.suffix == ".gz" else _usps_svm(path)
        if values.shape[1:] != (_USPS_PX**2,) or not np.isin(values.min(initial=0), (-1, 0)):
            raise ValueError(f"{values.shape[1:]} values a row from {values.min()}")
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenDataError(
            f"USPS file {str(path)!r} cannot be read ({reason}), "
            "expected a label and 256 values from -1 to 1 in each row; fetch it again"
        ) from error
    images = np.rint((values + 1) * 127.5).clip(0, 255).astype(np.uint8).reshape(-1, _USPS_PX, _USPS_PX)
    return images, _checked_codes(codes.astype(np.intp), _DIGITS, str(path))


def _usps_text(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows of a label 0 - 9 and 256 values: the format of zip.train.gz."""
    text = gzip.decompress(path.read_bytes())
    if not text.strip():
        raise ValueError("it is empty")
    rows = np.loadtxt(io.BytesIO(text), ndmin=2)
    return rows[:, 1:], rows[:, 0]


def _usps_svm(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows of a label 1 - 10 and index:value pairs: the format of usps.bz2."""
    from sklearn.datasets import load_svmlight_file

    text = io.BytesIO(bz2.decompress(path.read_bytes()))
    values, labels = load_svmlight_file(text, n_features=_USPS_PX**2)
    return values.toarray(), labels - 1


def _read_greek(name: str, splits: Sequence[str], download: bool) -> Dataset:
    """The 27 letters of a course, or its test photos by other people; neither may be downloaded."""
    place, read = ("greek/train", read_folder) if name == "greek" else ("greek/photos.csv", read_table)
    path = find([place])
    if path is None:
        raise MissingDataError(
            f"dataset {name!r} is not on this machine, expected {place} in the folder HEADSTART_DATA names; "
            "use letters of your own: a folder of class folders with --data, a test set with --test"
        )
    return replace(read(path), name=name)


_MNIST = _IdxFamily(
    "MNIST/raw",
    _DIGITS,
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    {
        "train-images-idx3": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
_FASHION_MNIST = _IdxFamily(
    "FashionMNIST/raw",
    _FASHION,
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    {
        "train-images-idx3": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)
_KMNIST = _IdxFamily(
    "KMNIST/raw",
    _KANA,
    ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    {
        "train-images-idx3": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1": "7320c461ea6c1c855c0b718fb2a4b134",
    },
)
_EMNIST_LETTERS = _IdxFamily(
    "EMNIST/raw",
    tuple(string.ascii_lowercase),
    (),
    {},
    stems=("emnist-letters-train", "emnist-letters-test"),
    first_label=1,
    transposed=True,
)

KNOWN = {
    "digits": Known("1,797 digits of 8 x 8, bundled: no download", _read_digits),
    "emnist-letters": Known("145,600 handwritten letters of 28 x 28, train and test", _EMNIST_LETTERS.read),
    "fashion-mnist": Known("70,000 images of clothes of 28 x 28, train and test", _FASHION_MNIST.read),
    "greek": Known("27 Greek letters of a course, alpha, beta, gamma: not for download", _read_greek),
    "greek-photos": Known("photos of such letters by other people, by writer: not for download", _read_greek),
    "kmnist": Known("70,000 cursive Japanese characters of 28 x 28, train and test", _KMNIST.read),
    "mnist": Known("70,000 handwritten digits of 28 x 28, train and test", _MNIST.read),
    "omniglot-greek": Known(
        "480 drawings of the 24 Greek letters by 20 people, 105 x 105, bundled: no download",
        read_omniglot_greek,
    ),
    "omniglot-small": Known(
        "4,840 drawings of 242 characters by 20 people each, 105 x 105, by person", read_omniglot
    ),
    "usps": Known("9,298 digits from envelopes of 16 x 16, train and test", _read_usps),
}
