"""Omniglot's two small background sets (242 characters of 8 alphabets, each drawn by 20 people), and the Greek one.

Lake, Salakhutdinov, Tenenbaum. Human-level concept learning through probabilistic program induction.
Science 350 (2015).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.readers.download import Remote, find, obtain
from headstart.data.stores import ArrayImages
from headstart.errors import BrokenDataError

__all__ = ["read_omniglot", "read_omniglot_greek"]

_SIDE_PX = 105
_GREEK_SHEET = Path(__file__).with_name("omniglot-greek.png")  # tools/pack_omniglot_greek.py writes it
_GREEK_LETTERS = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"),
    *("iota", "kappa", "lambda", "mu", "nu", "xi", "omicron", "pi"),
    *("rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
_N_DRAWERS, _N_TEACHING = 20, 5
_URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
_ARCHIVES = tuple(
    Remote(f"omniglot-py/{name}.zip", (f"{_URL}{name}.zip",), md5)
    for name, md5 in (
        ("images_background_small1", "e704a628b5459e08445c13499850abc4"),
        ("images_background_small2", "b75a71a51d3b13f821f212756fe481fd"),
    )
)


def read_omniglot(name: str, splits: Sequence[str], download: bool) -> Dataset:
    """Read both archives; a character that is in both is read once. Images (105, 105, 1), black on white.

    Classes are such as ``Greek/character01``, groups such as ``Greek 07``, the seventh person who drew that
    alphabet. There are no splits, so ``splits`` is ignored.
    """
    drawings: dict[str, NDArray[np.uint8]] = {}
    for remote in _ARCHIVES:
        path = find([remote.place], remote) or obtain(remote, name, download=download)
        for place, pixels in _drawings(path):
            drawings.setdefault(place, pixels)
    places = sorted(drawings)
    labels = [str(PurePosixPath(place).parent) for place in places]
    groups = [f"{place.split('/')[0]} {PurePosixPath(place).stem[-2:]}" for place in places]
    return Dataset(
        name,
        ArrayImages(np.stack([drawings[place] for place in places])),
        np.array(labels),
        tuple(sorted(set(labels))),
        groups=np.array(groups),
    )


def read_omniglot_greek(name: str, splits: Sequence[str], download: bool) -> Dataset:
    """Read the 480 bundled Greek letters, (105, 105, 1), black on white: 20 drawings each.

    Classes ``alpha`` to ``omega``; groups ``drawer 01`` to ``drawer 20``. The first five drawers are
    ``train``, the others ``test``. ``splits`` and ``download`` are ignored.
    """
    from PIL import Image

    with Image.open(_GREEK_SHEET) as sheet:
        pixels = np.asarray(sheet.convert("L"))
    n_letters = len(_GREEK_LETTERS)
    tiles = pixels.reshape(n_letters, _SIDE_PX, _N_DRAWERS, _SIDE_PX)  # row of the sheet, y, drawer, x
    drawers = np.array([f"drawer {number:02}" for number in range(1, _N_DRAWERS + 1)])
    parts = np.repeat(["train", "test"], [_N_TEACHING, _N_DRAWERS - _N_TEACHING])
    return Dataset(
        name,
        ArrayImages(tiles.transpose(0, 2, 1, 3).reshape(-1, _SIDE_PX, _SIDE_PX)),
        np.repeat(_GREEK_LETTERS, _N_DRAWERS),
        _GREEK_LETTERS,
        groups=np.tile(drawers, n_letters),
        splits=np.tile(parts, n_letters),
    )


def _drawings(path: Path) -> list[tuple[str, NDArray[np.uint8]]]:
    """Path below the top folder of the archive, and pixels, of every drawing."""
    from PIL import Image

    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".png")]
            found = []
            for name in names:
                with Image.open(io.BytesIO(archive.read(name))) as image:
                    if image.size != (_SIDE_PX, _SIDE_PX):
                        raise ValueError(f"{name} is {image.size[0]} x {image.size[1]} px")
                    found.append((name.split("/", 1)[1], np.asarray(image.convert("L"))))
    except (OSError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise BrokenDataError(
            f"Omniglot archive {str(path)!r} cannot be read ({error}), expected drawings of {_SIDE_PX} x "
            f"{_SIDE_PX} px in folders of alphabets; fetch it again"
        ) from error
    return found
