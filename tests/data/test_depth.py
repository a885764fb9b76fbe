"""The depth of 16-bit files: decided once over the dataset, kept by its subsets, part of its fingerprint."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import FileImages
from headstart.data.depth import SharedDepth, may_be_deep
from headstart.data.files import examine, examine_file
from image_files import deep_png, saved, tiff

BRIGHT, DIM = 4000, 200  # of 12 bits; alone, the dim one would pass for 8


def deep(largest: int) -> np.ndarray:
    values = np.zeros((8, 8, 1), np.uint16)
    values[2:6, 2:6] = largest
    return values


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    contents = {
        "bright.png": deep_png(deep(BRIGHT)),
        "dim.png": deep_png(deep(DIM)),
        "dim.tif": tiff(deep(DIM)),
        "plain.jpg": saved(Image.new("L", (8, 8), 9), "JPEG"),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return [tmp_path / name for name in contents]


def test_the_depth_is_that_of_the_whole(paths: list[Path]) -> None:
    images = FileImages(paths)
    assert images.depth_bits == 12
    assert [images.image(place).max() for place in range(3)] == [249, 12, 12]
    assert images.preview(1, 32)[1].max() == 12
    assert images.image(1, 8).max() == 200
    assert images.image(3).max() == 9


def test_a_subset_keeps_it_and_a_dataset_of_its_own_does_not(paths: list[Path]) -> None:
    dim = FileImages(paths).subset(np.array([1, 3]))
    alone = FileImages([paths[1], paths[3]])
    assert dim.depth_bits == 12 and dim.image(0).max() == 12
    assert alone.depth_bits == 8 and alone.image(0).max() == 200
    assert dim.digests == alone.digests and dim.fingerprint != alone.fingerprint
    assert FileImages([paths[3]]).depth_bits is None


def test_two_datasets_together_have_the_larger(paths: list[Path]) -> None:
    both = FileImages(paths[1:2]).joined(FileImages(paths[:1]))
    assert both is not None and both.depth_bits == 12 and both.image(0).max() == 12


def test_copies_for_other_processes_keep_it(paths: list[Path]) -> None:
    dim = FileImages(paths).subset(np.array([1]))
    for twin in (pickle.loads(pickle.dumps(dim)), copy.deepcopy(dim)):
        assert twin.image(0).max() == 12 and twin.fingerprint == dim.fingerprint


def test_a_reader_that_examined_the_files_need_not_read_them_again(paths: list[Path]) -> None:
    depth = SharedDepth.of_largest(examine_file(path).largest for path in paths)
    images = FileImages(paths, depth=depth)
    for path in paths[1:]:
        path.unlink()
    assert images.depth_bits == 12


def test_only_files_that_may_have_16_bits_are_decoded_for_it(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.data import depth

    decoded = []
    monkeypatch.setattr(depth, "examine", lambda read, name: decoded.append(name) or examine(read, name))
    assert FileImages(paths).depth_bits == 12
    assert sorted(decoded) == sorted(map(str, paths[:3]))
    colour = saved(Image.new("RGB", (2, 2)))
    assert not may_be_deep(colour) and may_be_deep(deep_png(deep(1))) and may_be_deep(b"P5 1 1 65535 ")


def test_files_without_16_bits_keep_their_fingerprint(paths: list[Path]) -> None:
    full = deep_png(np.full((8, 8, 1), 65535, np.uint16))
    paths[0].write_bytes(full)
    import hashlib

    images = FileImages([paths[0], paths[3]])
    assert images.fingerprint == hashlib.sha256(b"files" + b"".join(images.digests)).hexdigest()
